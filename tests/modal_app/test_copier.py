"""What an attempt writes to its container's disk is copied to the Volume: on real files, without Modal."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from modal_app.cloud import drafts
from modal_app.cloud.copier import Copier
from modal_app.cloud.copies import Copies
from modal_app.store import checkpoints
from modal_app.store.full_disk import FREE_SOME
from modal_app.store.layout import StepFolder, Store
from modal_app.store.state import read_outcome
from modal_app.store.step import FailureReason, Outcome, OutcomeStatus, StepKind

SIZE = 1000


class Interrupted(Exception):
    """The container dies."""


@dataclass
class Work:
    """An attempt at a run, as its worker sees it."""

    written: StepFolder
    commits: list[list[str]] = field(default_factory=list)
    """What the draft on the Volume had at each commit."""
    commit_s: float = 0.0

    @property
    def draft(self) -> StepFolder:
        return self.written.draft_of(self.written.drafted_by)

    @property
    def names(self) -> list[str]:
        return sorted(path.name for path in self.draft.model.glob("*"))

    def commit(self) -> None:
        self.commits.append(self.names)
        time.sleep(self.commit_s)

    def save(self, step: int, size: int = SIZE, *, last: int = 100) -> Path:
        checkpoint = self.written.model / f"checkpoint-{step}"
        (checkpoint / "global_step").mkdir(parents=True)
        (checkpoint / "trainer_state.json").write_text(json.dumps({"global_step": step, "max_steps": last}))
        (checkpoint / "global_step" / "state").write_bytes(bytes([step]) * size)
        (checkpoint / "rng").write_text(str(step))
        checkpoints.mark_complete(checkpoint, {})
        return checkpoint

    def end(self, status: OutcomeStatus, reason: FailureReason | None = None) -> None:
        outcome = Outcome(status, 1, 0.0, 1.0, reason, message=str(status)).to_json()
        if status is OutcomeStatus.SUCCEEDED:
            self.written.done.write_text(outcome)
        self.written.result_of(self.written.attempt(1)).write_text(outcome)

    def outcome(self) -> Outcome:
        found = read_outcome(self.written.attempt(1).result)
        assert found is not None
        return found


@pytest.fixture
def work(tmp_path: Path) -> Work:
    folder = Store(tmp_path / "volume").folder(StepKind.TRAIN, "run")
    return Work(drafts.begin(folder, 1, tmp_path / "scratch"))


@contextmanager
def asked_to_stop(copier: Copier, work: Work) -> Iterator[None]:
    """Copying, until the block ends in a request to stop."""
    with contextlib.suppress(KeyboardInterrupt), copier.copying(work.written):
        yield
        raise KeyboardInterrupt


def wait_for(work: Work, name: str) -> None:
    until = time.monotonic() + 10
    while name not in (work.commits or [[]])[-1]:
        assert time.monotonic() < until
        time.sleep(0.005)


def anything(left: int) -> None:
    pass


def test_a_checkpoint_that_the_trainer_removes_meanwhile_still_arrives_and_goes_when_a_newer_one_is_there(
    work: Work,
) -> None:
    copies, first = Copies(work.written), work.save(10)

    def make_room(left: int) -> None:
        shutil.rmtree(first, ignore_errors=True)
        assert work.names == [], "a part of a checkpoint is no checkpoint"

    assert copies.copy_checkpoint(first, make_room)
    assert checkpoints.newest_step(work.draft.model) == 10
    assert checkpoints.damage_of(work.draft.model / "checkpoint-10") == ""
    copies.copy_checkpoint(work.save(20), anything)
    copies.remove_gone()
    assert work.names == ["checkpoint-20"]


def test_a_checkpoint_of_an_earlier_attempt_is_linked_and_goes_like_an_own_one(work: Work, tmp_path: Path) -> None:
    Copies(work.written).copy_checkpoint(work.save(10), anything)
    second = Work(drafts.begin(work.written, 2, tmp_path / "scratch-2"))
    copies = Copies(second.written)
    assert checkpoints.newest_step(second.written.model) == 10
    assert copies.waiting() == []
    copies.copy_checkpoint(second.save(20), anything)
    shutil.rmtree(second.written.model / "checkpoint-10", ignore_errors=True)  # as the trainer does
    copies.remove_gone()
    assert second.names == ["checkpoint-20"]
    assert work.names == ["checkpoint-10"], "another container may resume from it"


def test_the_checkpoint_before_stays_until_the_next_one_is_complete_though_the_trainer_has_removed_it(
    work: Work,
) -> None:
    copies = Copies(work.written)
    copies.copy_checkpoint(work.save(10), anything)
    (work.written.model / "checkpoint-20").mkdir()  # with save_total_limit=1: its marker is not written yet
    shutil.rmtree(work.written.model / "checkpoint-10")
    assert not copies.newest_waits()
    copies.remove_gone()
    assert work.names == ["checkpoint-10"]


def test_a_damaged_checkpoint_does_not_stay_in_the_place_of_the_one_that_the_run_goes_on_from(
    work: Work, tmp_path: Path
) -> None:
    for step in (10, 20):
        Copies(work.written).copy_checkpoint(work.save(step), anything)
    (work.draft.model / "checkpoint-20" / "rng").write_text("??")
    folder = Store(tmp_path / "volume").folder(StepKind.TRAIN, "run")
    second = Work(drafts.begin(folder, 2, tmp_path / "scratch-2"))
    taken = checkpoints.set_aside_unusable(second.written.model)
    assert taken is not None
    shutil.rmtree(taken)  # to make room
    Copies(second.written).remove_gone()
    assert second.names == ["checkpoint-10"]


def test_a_run_whose_last_checkpoint_is_at_its_end_still_has_one_to_go_on_from(work: Work) -> None:
    copies = Copies(work.written)
    copies.copy_checkpoint(work.save(10, last=20), anything)
    copies.copy_checkpoint(work.save(20, last=20), anything)
    shutil.rmtree(work.written.model / "checkpoint-10")
    copies.remove_gone()
    assert work.names == ["checkpoint-10", "checkpoint-20"], "the weights are not on the Volume yet"
    work.end(OutcomeStatus.SUCCEEDED)
    with Copier(work.commit).copying(work.written):
        pass
    assert work.names == ["checkpoint-20"]


def test_a_copy_that_is_cut_off_leaves_the_checkpoint_before(work: Work) -> None:
    copies = Copies(work.written)
    copies.copy_checkpoint(work.save(10), anything)
    newer = work.save(20)

    def die(left: int) -> None:
        if left < SIZE:
            raise Interrupted

    with pytest.raises(Interrupted):
        copies.copy_checkpoint(newer, die)
    assert work.names == ["checkpoint-10"]
    assert [one.name for one in copies.waiting()] == ["checkpoint-20"]


def test_a_checkpoint_is_on_the_volume_and_committed_before_its_run_has_ended(work: Work) -> None:
    copier = Copier(work.commit, poll_s=0.01)
    with copier.copying(work.written):
        work.save(10)
        wait_for(work, "checkpoint-10")
        work.end(OutcomeStatus.STOPPED)
        assert not work.written.attempt(1).result.exists()
    assert work.outcome().message == "stopped"


def test_a_run_counts_as_succeeded_only_when_all_its_files_are_there(work: Work) -> None:
    copier = Copier(work.commit)
    with copier.copying(work.written):
        work.save(10)
        work.save(20)
        (work.written.model / "checkpoint-30").mkdir()  # not complete
        (work.written.model / "broken-checkpoint-5").mkdir()
        (work.written.model / "adapter_model.safetensors").write_bytes(b"weights")
        work.end(OutcomeStatus.SUCCEEDED)
    assert work.names == ["adapter_model.safetensors", "checkpoint-10", "checkpoint-20"]
    assert read_outcome(work.draft.done) == work.outcome()
    assert not work.draft.attempt(1).copying.exists()


def test_a_worker_that_was_killed_when_it_had_said_that_it_succeeded_has(work: Work) -> None:
    with Copier(work.commit).copying(work.written):
        work.save(10)
        work.end(OutcomeStatus.SUCCEEDED)
        work.written.result_of(work.written.attempt(1)).unlink()
    assert work.names == ["checkpoint-10"]
    assert read_outcome(work.draft.done) == work.outcome()


def test_a_volume_that_refuses_the_result_leaves_no_word_of_it(work: Work) -> None:
    work.draft.model.write_text("a file in the place of a folder")
    work.written.model.mkdir()
    (work.written.model / "weights").write_bytes(b"")
    work.end(OutcomeStatus.SUCCEEDED)
    with pytest.raises(OSError, match="model"), Copier(work.commit).copying(work.written):
        pass
    assert not work.draft.done.exists()
    assert not work.written.attempt(1).result.exists()


def test_a_full_volume_is_how_a_run_ends_and_no_other_container_trains_it_again(work: Work) -> None:
    work.draft.model.mkdir()
    full = work.draft.model / "weights"
    full.symlink_to("/dev/full")
    (work.written.model / "a").mkdir(parents=True)
    (work.written.model / "a" / "first").write_bytes(b"1")
    (work.written.model / "weights").write_bytes(b"2")
    work.end(OutcomeStatus.SUCCEEDED)
    with Copier(work.commit).copying(work.written):
        pass
    outcome = work.outcome()
    assert (outcome.status, outcome.reason) == (OutcomeStatus.FAILED, FailureReason.DISK)
    assert outcome.message == f"{full}: No space left on device. {FREE_SOME}"
    assert not work.draft.done.exists()
    assert not [path for path in work.draft.model.rglob("*") if not path.is_dir()], "its result has room"


def test_a_failure_is_recorded_though_its_checkpoint_cannot_be_copied(work: Work) -> None:
    work.draft.model.write_text("a file in the place of a folder")
    work.save(10)
    work.end(OutcomeStatus.FAILED)
    with Copier(work.commit).copying(work.written):
        pass
    assert work.outcome().status is OutcomeStatus.FAILED


@pytest.mark.parametrize(("size", "arrives"), [(SIZE, True), (20 * SIZE, False)])
def test_after_a_request_to_stop_a_checkpoint_is_copied_if_earlier_copies_show_that_the_time_is_enough(
    work: Work, size: int, arrives: bool
) -> None:
    work.commit_s = 0.1
    copier = Copier(work.commit, poll_s=0.01, leave_s=1.0)  # at 10 kB a second
    with asked_to_stop(copier, work):
        work.save(10)
        wait_for(work, "checkpoint-10")
        copier.leave()
        work.save(20, size)
        work.end(OutcomeStatus.STOPPED, FailureReason.OOM)
    assert work.names == (["checkpoint-10", "checkpoint-20"] if arrives else ["checkpoint-10"])
    assert work.outcome().status is OutcomeStatus.STOPPED
    assert ("it continues from step 10" in work.outcome().message) is not arrives
    assert work.outcome().reason is FailureReason.OOM, "it is tried again with a smaller micro batch"


def test_a_run_whose_time_limit_ends_before_it_is_copied_has_not_succeeded(work: Work) -> None:
    with Copier(work.commit, until=time.monotonic()).copying(work.written):
        work.written.model.mkdir()
        work.end(OutcomeStatus.SUCCEEDED)
    assert work.outcome().status is OutcomeStatus.STOPPED
    assert "it starts over" in work.outcome().message
    assert not work.draft.done.exists()


def test_a_run_that_has_succeeded_but_cannot_be_copied_in_time_goes_on_from_its_checkpoint(work: Work) -> None:
    work.commit_s = 0.1
    copier = Copier(work.commit, poll_s=0.01, leave_s=1.0)
    with asked_to_stop(copier, work):
        work.save(10)
        wait_for(work, "checkpoint-10")
        copier.leave()
        (work.written.model / "weights").write_bytes(bytes(20 * SIZE))
        work.end(OutcomeStatus.SUCCEEDED)
    assert work.outcome().status is OutcomeStatus.STOPPED
    assert not work.draft.done.exists()
