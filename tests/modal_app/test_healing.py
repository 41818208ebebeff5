"""on_oom=halve: which attempts are followed by one with a smaller micro batch, and what that one goes on from."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from modal_app.cloud import drafts
from modal_app.process.failures import Failure, classify
from modal_app.process.healing import judged, with_smaller_batch
from modal_app.store import checkpoints
from modal_app.store.layout import Attempt, StepFolder, Store
from modal_app.store.smaller_batch import changes_after
from modal_app.store.step import Device, FailureReason, Outcome, OutcomeStatus, Step, StepKind

BATCH = {"micro_batch_size": 8, "gradient_accumulation_steps": 2}
ASKED = Step(StepKind.TRAIN, "run", {**BATCH, "sequence_len": 512}, "data", device=Device.CUDA, heals=True)
ON_GPU = {"out_of_memory_on": "gpu"}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


class OutOfMemoryError(RuntimeError):
    """An error like torch's."""


def failed(number: int, facts: dict[str, Any], reason: FailureReason = FailureReason.OOM) -> Outcome:
    return Outcome(OutcomeStatus.FAILED, number, 1.0, 2.0, reason, "CUDA out of memory", facts)


def attempted(store: Store, asked: Step, facts: dict[str, Any] = ON_GPU) -> tuple[Step, Outcome]:
    """One more attempt, with everything that it leaves."""
    folder = store.folder(asked.kind, asked.key)
    step = with_smaller_batch(asked, folder)
    attempt: Attempt = folder.attempt(len(folder.attempts()) + 1)
    attempt.path.mkdir(parents=True)
    attempt.step.write_text(step.to_json())
    outcome = judged(failed(attempt.number, facts), asked, step, folder)
    attempt.result.write_text(outcome.to_json())
    return step, outcome


def checkpoint(folder: StepFolder) -> None:
    (folder.model / "checkpoint-2").mkdir(parents=True)


def test_the_same_rows_in_each_step_with_fewer_at_a_time() -> None:
    assert changes_after(BATCH, 0) == {}
    assert changes_after(BATCH, 1) == {"micro_batch_size": 4, "gradient_accumulation_steps": 4}
    assert changes_after(BATCH, 3) == {"micro_batch_size": 1, "gradient_accumulation_steps": 16}
    assert changes_after({**BATCH, "micro_batch_size": 3}, 2) == {
        "micro_batch_size": 1,
        "gradient_accumulation_steps": 6,
    }
    assert changes_after({"micro_batch_size": 4, "eval_batch_size": 16}, 1)["eval_batch_size"] == 2
    assert changes_after({"micro_batch_size": 4, "eval_batch_size": 1}, 1).get("eval_batch_size") is None
    assert changes_after({"micro_batch_size": 1}, 1) == changes_after({}, 1) == {}


def test_it_is_tried_again_three_times_at_most_and_then_it_has_failed(store: Store) -> None:
    tried = [attempted(store, ASKED) for _ in range(4)]
    assert [step.config["micro_batch_size"] for step, _ in tried] == [8, 4, 2, 1]
    assert [outcome.status for _, outcome in tried] == [*["stopped"] * 3, "failed"]
    assert tried[0][1].message == "CUDA out of memory; it is tried again with micro_batch_size=4"
    assert tried[3][1].message == "CUDA out of memory"
    assert [outcome.facts.get("smaller_batch", {}).get("micro_batch_size") for _, outcome in tried] == [None, 4, 2, 1]
    (step, _) = attempted(store, ASKED)
    assert step.config["micro_batch_size"] == 1, "also when it is requested again"


def test_with_one_row_at_a_time_there_is_nothing_to_halve(store: Store) -> None:
    _, outcome = attempted(store, replace(ASKED, config={"micro_batch_size": 1}))
    assert outcome.status is OutcomeStatus.FAILED


@pytest.mark.parametrize(
    ("facts", "device", "again"),
    [(ON_GPU, Device.CUDA, True), (ON_GPU, Device.CPU, True), ({"out_of_memory_on": "machine"}, Device.CPU, True),
     ({"out_of_memory_on": "machine"}, Device.CUDA, False), ({}, Device.CUDA, False), ({}, Device.CPU, False)],
)  # fmt: skip
def test_only_the_memory_that_it_trains_in_counts_and_never_a_kill(
    store: Store, facts: dict[str, Any], device: Device, again: bool
) -> None:
    _, outcome = attempted(store, replace(ASKED, device=device), facts)
    assert (outcome.status is OutcomeStatus.STOPPED) is again


def test_without_it_a_failure_stays_one_but_counts_for_a_later_launch_with_it(store: Store) -> None:
    _, outcome = attempted(store, replace(ASKED, heals=False))
    assert (outcome.status, outcome.facts) == (OutcomeStatus.FAILED, ON_GPU)
    step, _ = attempted(store, ASKED)
    assert step.config["micro_batch_size"] == 4
    step, _ = attempted(store, replace(ASKED, heals=False))
    assert step.config["micro_batch_size"] == 8, "the request is the same"


def test_other_failures_are_not_healed(store: Store) -> None:
    folder = store.folder(ASKED.kind, ASKED.key)
    outcome = failed(1, ON_GPU, FailureReason.DISK)
    assert judged(outcome, ASKED, ASKED, folder) == outcome


@pytest.mark.parametrize(("keys", "stays"), [({}, True), ({"sample_packing": True}, False), ({"rl": "grpo"}, False)])
def test_checkpoints_stay_where_the_order_of_the_rows_does(store: Store, keys: dict[str, Any], stays: bool) -> None:
    asked = replace(ASKED, config={**ASKED.config, **keys})
    folder = store.folder(asked.kind, asked.key)
    attempted(store, asked)
    checkpoint(folder)
    with_smaller_batch(asked, folder)
    assert (folder.model / "checkpoint-2").exists() is stays


def test_on_modal_no_later_attempt_goes_on_from_a_larger_batch(store: Store) -> None:
    asked = replace(ASKED, config={**ASKED.config, "sample_packing": True})
    folder = store.folder(asked.kind, asked.key)

    def begun(number: int) -> Step:
        draft = drafts.begin(folder, number, store.root / f"scratch-{number}")
        step = with_smaller_batch(asked, draft)
        draft.attempt(number).step.write_text(step.to_json())
        return step

    begun(1)
    saved = folder.draft_of(1).model / "checkpoint-100"
    saved.mkdir(parents=True)
    (saved / "state").write_text("of eight rows at a time")
    checkpoints.mark_complete(saved, {})
    step = begun(2)
    assert drafts.newest_step(folder) == checkpoints.newest_step(folder.draft_of(2).model) == 100
    folder.attempt(2).result.write_text(judged(failed(2, ON_GPU), asked, step, folder.draft_of(2)).to_json())
    assert begun(3).config["micro_batch_size"] == 4
    assert drafts.newest_step(folder) == 0
    begun(4)
    assert checkpoints.all_checkpoints(folder.draft_of(4).model) == []


def test_checkpoints_of_the_same_batch_stay(store: Store) -> None:
    """A run that was stopped after it had been healed goes on."""
    asked = replace(ASKED, config={**ASKED.config, "sample_packing": True})
    folder = store.folder(asked.kind, asked.key)
    attempted(store, asked)
    attempted(store, asked, {})
    checkpoint(folder)
    with_smaller_batch(asked, folder)
    assert (folder.model / "checkpoint-2").exists()


@pytest.mark.parametrize("text", [None, '{"kind": "tr'])
def test_an_attempt_that_was_killed_before_it_began_costs_no_checkpoint(store: Store, text: str | None) -> None:
    asked = replace(ASKED, config={**ASKED.config, "sample_packing": True}, heals=False)
    folder = store.folder(asked.kind, asked.key)
    attempted(store, asked, {})
    checkpoint(folder)
    killed = folder.attempt(2)
    killed.path.mkdir()
    if text is not None:
        killed.step.write_text(text)
    with_smaller_batch(asked, folder)
    assert (folder.model / "checkpoint-2").exists()


def test_a_ranks_own_account_says_which_memory_it_was() -> None:
    try:
        try:
            raise OutOfMemoryError("Tried to allocate 2 GiB")
        except OutOfMemoryError as error:
            raise RuntimeError("in a step") from error
    except RuntimeError as error:
        failure = classify(error, "train")
    assert Failure.from_json(failure.to_json()) == failure
    assert failure.facts == ON_GPU
    on_the_machine = (MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory"))
    assert [classify(one, "train").facts for one in on_the_machine] == [{"out_of_memory_on": "machine"}] * 2
    assert classify(RuntimeError("CUDA error: out of memory"), "train").facts == ON_GPU
    assert json.loads(classify(ValueError("x"), "train").to_json())["facts"] == {}
