"""`axosweep ls`: the files of a run."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from modal_app.store.layout import Store, after_key
from modal_app.store.step import FailureReason, Outcome, OutcomeStatus, StepKind
from runner.types import Run
from tests.runner.builders import finish, open_sweep, run
from tests.runner.pulling import said
from tests.runner.run_files_store import finished_run, merge, write_checkpoint


def test_ls_says_what_there_is_of_a_run(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    one = finished_run(store)
    merge(store, one, "abc")
    write_checkpoint(store.folder(StepKind.TRAIN, one.key), 30, whole=False)
    printed = json.loads(said(capsys, "ls", one.key, "--json", store=store))
    parts = {part["part"]: part for part in printed["parts"]}
    assert list(parts) == [
        "adapter", "merged-abc", "checkpoint-10", "checkpoint-20", "checkpoint-30", "record", "logs", "data", "rest",
    ]  # fmt: skip
    assert [name for name, part in parts.items() if not part["whole"]] == ["checkpoint-30"]
    size = os.path.getsize(store.folder(StepKind.TRAIN, one.key).model / "adapter_config.json")
    assert parts["adapter"]["bytes"] == 300_000 + size
    printed = said(capsys, "ls", one.key, store=store)
    assert "incomplete" in printed
    assert str(store.root / "runs" / one.key / "model") in printed


def test_ls_says_the_status_and_the_reason_apart_in_json_and_together_in_words(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    one = run({"learning_rate": 1})
    open_sweep(store, [one])
    finish(store, StepKind.TRAIN, one.key, OutcomeStatus.FAILED, reason=FailureReason.OOM, message="too big")
    printed = json.loads(said(capsys, "ls", one.key, "--json", store=store))
    assert (printed["status"], printed["reason"]) == ("failed", "oom")
    assert said(capsys, "ls", one.key, store=store).startswith(f"{one.key}: failed (oom), ")


def ended(store: Store, kind: StepKind, one: Run, own: str, **facts: Any) -> None:
    """What a follow-up step of a run leaves."""
    folder = store.folder(kind, after_key(one.key, own))
    folder.path.mkdir(parents=True)
    folder.done.write_text(Outcome(OutcomeStatus.SUCCEEDED, 1, 1.0, 2.0, facts=facts).to_json())
    if kind is StepKind.EVALUATE:
        folder.losses.write_bytes(bytes(1000))


def test_ls_says_in_words_what_answers_and_evaluations_are(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    one = finished_run(store)
    assert "about it" not in said(capsys, "ls", one.key, store=store), "nothing there needs a description"
    drawn = {"greedy": False, "temperature": 0.7, "merged": f"{one.key}/def"}
    ended(store, StepKind.INFER, one, "a1", prompts=128, options={"greedy": True})
    ended(store, StepKind.INFER, one, "a2", prompts=1, options=drawn)
    ended(store, StepKind.EVALUATE, one, "e1", metrics={"eval_loss": 0.5})
    quiz = {"tasks/quiz@limit=10/acc": 0.5, "tasks/quiz@limit=10/f1": 0.5, "tasks/arc_easy/acc": 0.5}
    ended(store, StepKind.EVALUATE, one, "e2", metrics=quiz)
    parts = json.loads(said(capsys, "ls", one.key, "--json", store=store))["parts"]
    printed = {part["part"]: part["about"] for part in parts if part["about"]}
    assert all(part["bytes"] > 1000 for part in parts if part["part"].startswith("evaluation")), "without its losses"
    assert printed == {
        "answers-a1": "answers to 128 prompts, greedy",
        "answers-a2": "answers to 1 prompt, temperature 0.7, of the merged model",
        "evaluation-e1": "eval_loss",
        "evaluation-e2": "tasks arc_easy, quiz (limit=10)",
    }
    assert "answers to 128 prompts, greedy" in said(capsys, "ls", one.key, store=store)
