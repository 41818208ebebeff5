"""A store with two finished runs that differ at some held-out rows, with the rows' texts and answers."""

from __future__ import annotations

import json

from modal_app.held_out.held_out import HeldOut, HeldOutRow, Segment
from modal_app.store.layout import HELD_OUT, Store, after_key
from modal_app.store.step import StepKind, write_atomically
from runner.types import Run
from tests.runner.builders import finish_run, open_sweep, run
from tests.runner.report_store import answered
from tests.runner.test_infer import GREEDY
from tests.runner.verdict_rows import row_losses

ROWS = 30
INPUT = "5f" * 32
A = Segment("A.", True)
SECRET = "hf_abcdefghijklmnopqrstuvwxyz"


def two_runs(store: Store, *, text: str = "Say", answers: bool = True, described: bool = True) -> tuple[Run, Run]:
    """The second is better at the first ten rows, and worse at the next five. `text`: in each row's question."""
    one, other = (run({"learning_rate": rate, "base_model": "tiny"}) for rate in (0.1, 0.2))
    open_sweep(store, [one, other], "where")
    gains = [-0.1 * (at + 1) for at in range(10)] + [0.05 * (at + 1) for at in range(5)] + [0.0] * 15
    shape = {
        "tokens": [[2]] * ROWS, "documents": list(range(ROWS)), "dataset": [at % 2 for at in range(ROWS)],
        "datasets": (f"inputs/{INPUT[:16]}.jsonl", "maker/rows"), "length": [10 + at % 3 for at in range(ROWS)],
    }  # fmt: skip
    for each, shares in ((one, 0.0), (other, 1.0)):
        finish_run(store, each, {0: 3.0, 20: 2.0 - shares / 10})
        row_losses([[2.0 + shares * gain] for gain in gains], **shape).write(  # type: ignore[arg-type]
            store.folder(StepKind.TRAIN, each.key).losses
        )
        identity = store.folder(StepKind.TRAIN, each.key).identity
        inputs = [{"at": "datasets.0.path", "text": "my/rows.jsonl", "identity": INPUT}]
        write_atomically(identity, json.dumps(json.loads(identity.read_text()) | {"inputs": inputs}))
        if answers:
            said = [f"{at} by {each.key}" for at in range(ROWS)]
            answered(store, after_key(each.key, "1"), GREEDY, said)
    if described:
        _describe(store, one.data_key, text)
    return one, other


def _describe(store: Store, data_key: str, text: str) -> None:
    rows = tuple(
        HeldOutRow(at + 1, at, at % 2, (Segment(f"<user>{text}<end><user>question {at}<end>", False), A))
        if at % 2
        else HeldOutRow(at + 1, at, at % 2, (Segment(f"<user>question {at}<end>", False), Segment(f"{text}.", True)))
        for at in range(ROWS)
    )
    HeldOut(("a", "b"), True, rows).write(store.prepared_dataset(data_key) / HELD_OUT)
