"""What the end of a run's job records for the other runs of its search."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from modal_app.halving.asking import AtOnce, ByFile, asks_of, give_answer, open_questions
from modal_app.halving.ends import DIVERGED, note_end, note_trained, rung_of_stop, setting_of
from modal_app.halving.entries import TERMS, FileEntries, go_of, loss_of, out_of, stop_of
from modal_app.halving.halve import Answer, ask
from modal_app.halving.snapshot import Reading, Snapshot, Terms, Why
from modal_app.store.layout import Attempt, StepFolder, Store
from modal_app.store.rungs import Rungs
from modal_app.store.step import FailureReason, Outcome, OutcomeStatus, Step, StepKind
from tests.modal_app.halving_entries import MemoryEntries

RUNGS = Rungs("sweep/own", (0.2, 0.6), 3)
STEP = Step(StepKind.TRAIN, "run", {"seed": 1, "lora_r": 8}, "data", rungs=RUNGS)
"""Of 20 steps: its rungs are at 4 and 12."""


def ended(status: OutcomeStatus, reason: FailureReason | None = None, **facts: Any) -> Outcome:
    return Outcome(status, 1, 0.0, 1.0, reason, facts={"max_steps": 20, "eval_fingerprint": "rows", **facts})


def run_folder(root: Path) -> StepFolder:
    folder = Store(root).folder(StepKind.TRAIN, "run")
    folder.files.mkdir(parents=True, exist_ok=True)
    return folder


def noted(tmp_path: Path, outcome: Outcome, losses: Mapping[int, float | None] | None = None) -> MemoryEntries:
    """The entries after the end has been recorded twice."""
    folder, entries = run_folder(tmp_path), MemoryEntries()
    lines = [json.dumps({"step": step, "eval_loss": loss}) for step, loss in (losses or {}).items()]
    folder.metrics.write_text("\n".join([*lines, '{"step": 13, "eval_l']))
    note_end(entries, STEP, outcome, folder)
    before = entries.items()
    note_end(entries, STEP, outcome, folder)
    assert entries.items() == before
    return entries


def test_a_run_that_has_stopped_is_said_to_stop_in_its_own_search_alone(tmp_path: Path) -> None:
    own = ended(OutcomeStatus.AT_RUNG, rung=2, search="sweep/own")
    assert noted(tmp_path, own).found.keys() == {stop_of(2, "run")}
    other = ended(OutcomeStatus.AT_RUNG, rung=2, search="sweep/other")
    assert noted(tmp_path, other).found == {}


def test_a_run_whose_loss_became_nan_has_diverged_at_its_next_rung(tmp_path: Path) -> None:
    entries = noted(tmp_path, ended(OutcomeStatus.FAILED, FailureReason.NAN, step=3))
    assert Reading.of(entries.found[loss_of(1, "run")]) == Reading(None, 20, "rows")


@pytest.mark.parametrize("reason", [FailureReason.OOM, FailureReason.ERROR, FailureReason.DISK])
def test_a_run_that_has_failed_comes_to_no_further_rung(tmp_path: Path, reason: FailureReason) -> None:
    assert noted(tmp_path, ended(OutcomeStatus.FAILED, reason)).found.keys() == {out_of(0, "run")}


def test_a_run_that_may_be_continued_says_nothing(tmp_path: Path) -> None:
    for outcome in (
        ended(OutcomeStatus.STOPPED),
        ended(OutcomeStatus.LOST, FailureReason.LOST),
        ended(OutcomeStatus.FAILED, FailureReason.PREEMPTED),
        ended(OutcomeStatus.FAILED, FailureReason.TIMEOUT),
    ):
        assert noted(tmp_path, outcome).found == {}


def test_a_run_that_passed_rungs_without_asking_is_compared_by_its_records_or_left_out(tmp_path: Path) -> None:
    success = ended(OutcomeStatus.SUCCEEDED, step=20)
    entries = noted(tmp_path, success, {0: 3.0, 4: 2.0, 12: 1.0, 20: 0.5})
    assert entries.found.keys() == {loss_of(1, "run"), go_of(1, "run"), loss_of(2, "run"), go_of(2, "run")}
    assert entries.found[go_of(2, "run")] == {"why": Why.BEFORE}
    assert Reading.of(entries.found[loss_of(1, "run")]) == Reading(2.0, 20, "rows", setting=setting_of(STEP.config))
    assert noted(tmp_path, success, {0: 3.0, 10: 1.5, 20: 0.5}).found.keys() == {out_of(0, "run")}
    assert noted(tmp_path, success).found.keys() == {out_of(0, "run")}


def test_a_run_that_stopped_early_has_its_last_loss_at_the_rungs_after_that(tmp_path: Path) -> None:
    entries = noted(tmp_path, ended(OutcomeStatus.SUCCEEDED, step=8), {4: 2.0, 8: 1.0})
    assert [Reading.of(entries.found[loss_of(rung, "run")]).loss for rung in (1, 2)] == [2.0, 1.0]


def test_a_run_that_was_trained_beyond_a_rung_is_asked_at_the_next_one(tmp_path: Path) -> None:
    folder, entries = run_folder(tmp_path), MemoryEntries()
    folder.metrics.write_text('{"step": 4, "eval_loss": 2.0}\n')
    note_trained(entries, STEP, 20, 8, "rows", folder)
    assert entries.found.keys() == {loss_of(1, "run"), go_of(1, "run")}


def test_a_run_is_compared_by_what_it_reached_in_another_search(tmp_path: Path) -> None:
    """For example, the same search with fewer members: its evaluations at rungs are not in metrics.jsonl."""
    folder = run_folder(tmp_path)
    for number, (step, loss) in enumerate([(4, 2.0), (12, 1.0)], start=1):
        folder.attempt(number).path.mkdir()
        answers = {"rungs": [{"rung": number, "step": step, "loss": loss, "why": "top", "place": 1, "of": 1}]}
        folder.attempt(number).train_state.write_text(json.dumps(answers))
    entries = noted(tmp_path, ended(OutcomeStatus.SUCCEEDED, step=20), {20: 0.5})
    assert [Reading.of(entries.found[loss_of(rung, "run")]).loss for rung in (1, 2)] == [2.0, 1.0]
    assert entries.found[go_of(1, "run")] == {"why": Why.BEFORE}


def test_a_run_that_another_search_has_stopped_has_stopped_here_if_what_it_reached_at_the_step_is_known(
    tmp_path: Path,
) -> None:
    known = {4: Reading(2.0, 20, "rows", (1, 2), (0.5, 0.7))}
    for step, diverged, there, rung in [
        (4, "", known, 1), (4, "", {}, 0), (5, "", known, 0), (12, "", known, 0),
        (5, DIVERGED, {12: Reading(None, 20, "rows")}, 2), (13, DIVERGED, {16: Reading(None, 20, "rows")}, 0),
    ]:  # fmt: skip
        stopped = ended(OutcomeStatus.AT_RUNG, rung=3, search="sweep/other", step=step, why=diverged)
        assert rung_of_stop(RUNGS, stopped, there) == rung
        entries = MemoryEntries()
        note_end(entries, STEP, stopped, run_folder(tmp_path), there)
        said = {loss_of(rung, "run"): next(iter(there.values())).to_json()} if rung else {}
        assert {name: entries.found[name] for name in entries.found.keys() - {stop_of(rung, "run")}} == said
        assert (stop_of(rung, "run") in entries.found) == (rung > 0)


def test_settings_are_equal_but_for_the_seed() -> None:
    assert setting_of(STEP.config) == setting_of({**STEP.config, "seed": 2}) != setting_of({"lora_r": 4})


def test_a_trainer_in_a_container_asks_by_a_file_and_goes_on_without_an_answer(tmp_path: Path) -> None:
    store, attempt = Store(tmp_path), Attempt(tmp_path, 1)
    folder = store.folder(StepKind.TRAIN, "run")
    assert asks_of(STEP, store, folder, attempt) == AtOnce(
        FileEntries(tmp_path / "sweeps" / "sweep" / "rungs" / "own"), "run"
    )
    reading = Reading(1.0, 20, "rows", (1,) * 64, (0.5,) * 64)

    def answered(_: float) -> None:
        (question,) = open_questions(attempt, 2)
        assert (question.search, question.run, question.reading) == ("sweep/own", "run", reading)
        give_answer(attempt, question.rung, Answer(None, 2, 5))

    asks = ByFile("sweep/own", "run", attempt, sleep=answered)
    assert asks.ask(1, reading) == Answer(None, 2, 5)
    assert open_questions(attempt, 2) == []
    assert (asks.known(1), asks.known(2)) == (Answer(None, 2, 5), None)
    assert ByFile("sweep/own", "run", attempt, waits_s=0).ask(2, reading) == Answer(Why.UNANSWERED, 1, 1)
    assert type(asks_of(STEP, store, folder.draft_of(1), attempt)) is ByFile


def test_a_run_that_asks_while_the_terms_cannot_be_read_is_known_to_have_gone_on(tmp_path: Path) -> None:
    """Otherwise, others would wait for it to stop."""
    entries = FileEntries(tmp_path)
    assert ask(entries, "run", 1, Reading(1.0, 20, "rows")) == Answer(Why.UNANSWERED, 1, 1)
    entries.put(TERMS, Terms({"run": 1e-3, "other": 1e-3}, (0.2,), 2).to_json())
    assert Snapshot.of(entries.items()).has_gone(1, "run")
