"""`plan --diff`: a plan next to an earlier sweep, run by run and parameter by parameter."""

from __future__ import annotations

import json

import pytest

from modal_app.store.layout import Store
from modal_app.store.step import StepKind
from runner.errors import SweepError
from runner.launch.plan_diff import TRAINER, changed_since, diff_lines, plan_diff
from runner.types import Input, InputKind, Run
from tests.runner.builders import LOCK, open_sweep, plan, run


def _rates(*rates: float, **rest: object) -> list[Run]:
    return [run({"learning_rate": rate, "lora_r": 8} | rest) for rate in rates]


def test_runs_are_distinguished_by_their_places(store: Store) -> None:
    before = open_sweep(store, _rates(1e-3, 2e-3), "rates")
    found = plan_diff(plan(_rates(2e-3, 3e-3), store), [store], "rates", trainer=LOCK)
    assert found.sweep == before.sweep
    rates = [[one.params["learning_rate"] for one in runs] for runs in (found.only_there, found.only_here, found.both)]
    assert rates == [[1e-3], [3e-3], [2e-3]]
    assert [(one.name, one.there, one.here) for one in found.changes if one.name == "learning_rate"] == [
        ("learning_rate", (1e-3, 2e-3), (2e-3, 3e-3))
    ]


def test_a_changed_default_is_reported_once(store: Store) -> None:
    open_sweep(store, _rates(1e-3, 2e-3, weight_decay=0.0), "rates")
    found = plan_diff(
        plan(_rates(1e-3, 2e-3, weight_decay=0.1, warmup_ratio=0.1), store), [store], "rates", trainer=LOCK
    )
    changed = {one.name: (one.there, one.here) for one in found.changes if one.name != TRAINER}
    assert changed == {"weight_decay": ((0.0,), (0.1,)), "warmup_ratio": ((), (0.1,))}
    assert not found.both


def test_an_edited_file_and_another_trainer_are_reported(store: Store) -> None:
    old = run({"learning_rate": 1.0, "datasets": [{"path": "rows.jsonl"}]})
    open_sweep(store, [old], "rows")
    kept = store.folder(StepKind.TRAIN, old.key).identity
    inputs = [{"at": "datasets.0.path", "text": "rows.jsonl", "identity": "a" * 64}]
    kept.write_text(json.dumps(json.loads(kept.read_text()) | {"inputs": inputs, "trainer_lock": "old"}))
    new = run(
        {"learning_rate": 1.0, "datasets": [{"path": "rows.jsonl"}]},
        inputs=[Input("datasets.0.path", "rows.jsonl", InputKind.FILE, "b" * 64)],
    )
    found = plan_diff(plan([new], store), [store], "rows", trainer="new")
    changed = {one.name: (one.there, one.here) for one in found.changes}
    assert changed == {"what datasets.0.path holds": (("a" * 64,), ("b" * 64,)), TRAINER: (("old",), ("new",))}
    assert "  what datasets.0.path holds: aaaaaaaaaaaa there, bbbbbbbbbbbb here" in diff_lines(found)
    assert changed_since(new, store, old.key, trainer="new") == f"what datasets.0.path holds, {TRAINER}"
    faster = run({"learning_rate": 2.0, "datasets": [{"path": "rows.jsonl"}]}, inputs=new.inputs)
    assert "learning_rate (1 then, 2 now)" in changed_since(faster, store, old.key, trainer="old")
    assert changed_since(new, store, "no-such-run", trainer="new") == "", "nothing is known of it"


def test_the_same_question_has_no_difference(store: Store) -> None:
    runs = _rates(1e-3, 2e-3)
    open_sweep(store, runs, "rates")
    for one in runs:
        kept = store.folder(StepKind.TRAIN, one.key).identity
        kept.write_text(json.dumps(json.loads(kept.read_text()) | {"trainer_lock": LOCK}))
    found = plan_diff(plan(runs, store), [store], "rates", trainer=LOCK)
    assert (found.only_there, found.only_here, found.changes) == ((), (), ())
    assert diff_lines(found)[-1] == "  The same runs."


def test_a_sweep_that_is_not_there_is_refused(store: Store) -> None:
    open_sweep(store, _rates(1e-3), "rates")
    with pytest.raises(SweepError, match="There is no sweep ratse"):
        plan_diff(plan(_rates(1e-3), store), [store], "ratse", trainer=LOCK)
