"""The W&B variables in a run's environment: one id, project and group, whichever sweep continues it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from modal_app.process import tracking
from modal_app.process.rank import Rank
from modal_app.store.layout import Store
from modal_app.store.redact import redacted
from modal_app.store.rungs import Rungs
from modal_app.store.step import Outcome, OutcomeStatus, Step, StepKind, Tracking


def told(store: Store, sweep: str, **rest: object) -> dict[str, str]:
    said = {"mode": "offline", "project": "mine", "group": sweep, "name": "lora_r=8", "tags": ("a",), **rest}
    asked = Tracking(**said)  # type: ignore[arg-type]
    step = Step(StepKind.TRAIN, "key", {}, "data", tracking=asked, sweep=sweep)
    folder = store.folder(StepKind.TRAIN, "key")
    folder.path.mkdir(parents=True, exist_ok=True)
    return tracking.variables(step, folder)


def test_a_later_sweep_continues_the_same_run_where_it_began_and_is_its_tag(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = told(store, "first")
    expected = {"PROJECT": "mine", "RUN_GROUP": "first", "TAGS": "a", "RESUME": "allow", "JOB_TYPE": "train"}
    assert {name: first[f"WANDB_{name}"] for name in expected} == expected
    second = told(store, "second", project="other", entity="team")
    assert second == {**first, "WANDB_TAGS": "a,sweep:second"}
    assert told(store, "second") == second, "a sweep is one tag"
    assert told(store, "third")["WANDB_TAGS"] == "a,sweep:second,sweep:third"


def test_a_note_is_sent_until_the_run_has_begun_in_wandb(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert told(store, "first", note="why")["WANDB_NOTES"] == "why"
    id = told(store, "first")["WANDB_RUN_ID"]
    assert told(store, "second", note="other")["WANDB_NOTES"] == "why", "the first attempt died before it had begun it"
    (store.folder(StepKind.TRAIN, "key").path / "wandb" / f"run-20260101_000000-{id}").mkdir(parents=True)
    assert "WANDB_NOTES" not in told(store, "first", note="why"), "a user may have changed it there"


def test_variables_of_the_user_describe_a_run_only_until_it_has_begun_in_wandb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WANDB_NAME", "WANDB_TAGS", "WANDB_NOTES"):
        monkeypatch.setenv(name, "of the user")
    store = Store(tmp_path)
    step, folder = Step(StepKind.TRAIN, "key", {}, "data"), store.folder(StepKind.TRAIN, "key")
    tracking.forget_description(step, folder)
    id = told(store, "first")["WANDB_RUN_ID"]
    tracking.forget_description(step, folder)
    assert os.environ["WANDB_TAGS"] == os.environ["WANDB_NOTES"] == "of the user"
    (folder.path / "wandb" / f"offline-run-20260101_000000-{id}").mkdir(parents=True)
    tracking.forget_description(step, folder)
    assert not {"WANDB_NAME", "WANDB_TAGS", "WANDB_NOTES"} & os.environ.keys(), "they would replace what W&B has"


def test_a_run_belongs_to_the_sweep_object_of_the_first_sweep_that_ran_it(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert told(store, "first", mode="online", sweep_object="one")["WANDB_SWEEP_ID"] == "one"
    assert told(store, "second", mode="online", sweep_object="two")["WANDB_SWEEP_ID"] == "one"
    assert "WANDB_SWEEP_ID" not in told(store, "second", mode="offline")


def test_a_run_that_began_without_a_sweep_object_stays_without(tmp_path: Path) -> None:
    store = Store(tmp_path)
    told(store, "first", mode="online")
    assert "WANDB_SWEEP_ID" not in told(store, "first", mode="online", sweep_object="one")


def test_a_run_that_an_older_version_began_keeps_its_id(tmp_path: Path) -> None:
    store = Store(tmp_path)
    folder = store.folder(StepKind.TRAIN, "key")
    folder.path.mkdir(parents=True)
    folder.tracking.write_text(json.dumps({"id": "abc", "group": "first", "at": "1"}))
    variables = told(store, "second")
    assert (variables["WANDB_RUN_ID"], variables["WANDB_RUN_GROUP"]) == ("abc", "first")
    assert variables["WANDB_PROJECT"] == "mine"


def test_a_run_that_is_not_tracked_has_no_id(tmp_path: Path) -> None:
    store = Store(tmp_path)
    step = Step(StepKind.TRAIN, "key", {}, "data", tracking=Tracking("disabled"))
    assert tracking.variables(step, store.folder(StepKind.TRAIN, "key")) == {"WANDB_MODE": "disabled"}
    assert tracking.axolotl_keys(step) == {"use_wandb": False}


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ({"comet_api_key": "k"}, {"comet_api_key": "***"}),
        ({"a": [{"client_secret": "k", "b": 1}]}, {"a": [{"client_secret": "***", "b": 1}]}),
        ({"path": "s3://hunter22hunter22@host"}, {"path": "s3://***@host"}),
        ({"comet_api_key": None, "max_token": 3}, {"comet_api_key": None, "max_token": 3}),
    ],
)
def test_a_secret_is_hidden_by_its_name_and_by_its_value(value: object, shown: object) -> None:
    assert redacted(value, {"MY_TOKEN": "hunter22hunter22", "HF_TOKEN": "", "TOKEN_TOKEN": "host"}) == shown


@dataclass
class WandbRun:
    """A stand-in for W&B's SDK, as far as a worker uses it at the end."""

    summary: dict[str, Any] = field(default_factory=dict)
    preempting: bool = False
    exit_code: int | None = None

    def mark_preempting(self) -> None:
        self.preempting = True

    def finish(self, exit_code: int) -> None:
        self.exit_code = exit_code


@pytest.mark.parametrize(
    ("state", "rungs", "summary"),
    [
        ({"at_rung": {"rung": 1}, "rungs": [{"rung": 1}]}, True, {"rung": 1, "stopped_at_rung": 1}),
        ({"ended": True, "rungs": [{"rung": 1}, {"rung": 2}]}, True, {"rung": 2, "stopped_at_rung": 0}),
        ({"ended": True}, False, {}),
    ],
)
def test_a_run_that_has_stopped_at_a_rung_is_finished_in_wandb_and_its_summary_says_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: Mapping[str, Any], rungs: bool, summary: Mapping[str, Any]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(run=(run := WandbRun())))
    rank = rank_of(tmp_path, rungs=rungs)
    tracking.finish(rank, state, failed=False)
    assert run == WandbRun(dict(summary), False, 0)


def test_a_run_that_is_resumed_after_a_rung_is_not_stopped_there_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(run=(run := WandbRun({"stopped_at_rung": 1}))))
    rank = rank_of(tmp_path, rungs=False)
    rank.attempt.path.mkdir(parents=True)
    rank.attempt.result.write_text(Outcome(OutcomeStatus.AT_RUNG, 1, 1.0, 2.0).to_json())
    tracking.finish(rank, {"ended": True}, failed=False)
    assert run == WandbRun({"stopped_at_rung": 0}, False, 0)


def rank_of(folder: Path, *, rungs: bool) -> Rank:
    step = Step(StepKind.TRAIN, "key", {}, "data", rungs=Rungs("s/1", (0.2, 0.6), 3) if rungs else None)
    of_run = Store(folder).folder(StepKind.TRAIN, "key")
    return Rank(step, of_run, of_run.attempt(1))
