"""The note about runs that were requested before in the same words, and are other runs now."""

from __future__ import annotations

import json

from modal_app.store.layout import Store
from modal_app.store.step import StepKind
from runner.launch.requested_before import changed_note
from runner.types import Input, InputKind, Run
from tests.runner.builders import LOCK, open_sweep, plan, run


def with_rows(content: str, rate: float) -> Run:
    rows = Input("datasets.0.path", "rows.jsonl", InputKind.FILE, content * 64)
    config = {"learning_rate": rate, "datasets": [{"path": "rows.jsonl"}]}
    return run(config, inputs=[rows], overrides=(f"learning_rate={rate}",))


def launch(store: Store, runs: list[Run], name: str) -> str:
    sweep = open_sweep(store, runs, name).sweep
    for one in runs:
        identity = store.folder(StepKind.TRAIN, one.key).identity
        inputs = [{"at": found.at, "text": found.text, "identity": found.identity} for found in one.inputs]
        described = json.loads(identity.read_text()) | {"inputs": inputs, "trainer_lock": LOCK}
        identity.write_text(json.dumps(described))
    return sweep


def test_runs_of_an_edited_file_are_announced_with_what_has_changed(store: Store) -> None:
    before = launch(store, [with_rows("a", 1.0), with_rows("a", 2.0)], "before")
    edited = plan([with_rows("b", 1.0), with_rows("b", 2.0), with_rows("b", 3.0)], store, "edited")
    note = changed_note(edited, store, trainer=LOCK)
    changed = "what datasets.0.path holds"
    assert note == f"2 of these runs had another key in {before}. This has changed since then: {changed}."
    launch(store, [with_rows("b", 1.0)], "edited")
    again = plan([with_rows("c", 1.0), with_rows("c", 3.0)], store, "again")
    assert "1 of these runs had another key in edited" in changed_note(again, store, trainer=LOCK), "the newest one"


def test_the_same_runs_and_other_words_need_no_note(store: Store) -> None:
    launch(store, [with_rows("a", 1.0)], "before")
    assert changed_note(plan([with_rows("a", 1.0), with_rows("a", 2.0)], store), store, trainer=LOCK) == ""
    assert changed_note(plan([with_rows("b", 2.0)], store), store, trainer=LOCK) == ""
