"""What an attempt on Modal starts from, and how its draft becomes the result: on real files, without Modal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modal_app.cloud import drafts
from modal_app.store import checkpoints
from modal_app.store.layout import StepFolder, Store
from modal_app.store.step import StepKind


@pytest.fixture
def folder(tmp_path: Path) -> StepFolder:
    return Store(tmp_path).folder(StepKind.TRAIN, "run")


def attempt(folder: StepFolder, number: int, *steps: int) -> StepFolder:
    """An attempt that has begun, and has saved at these steps."""
    drafts.begin(folder, number, folder.path.with_name(f"scratch-{number}"))
    draft = folder.draft_of(number)
    for step in steps:
        save(draft, step)
    with draft.metrics.open("a") as file:
        file.write(f"{number}\n")
    return draft


def save(draft: StepFolder, step: int) -> None:
    checkpoint = draft.model / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    (checkpoint / "state").write_text(f"{draft.drafted_by} at {step}")
    checkpoints.mark_complete(checkpoint, {})


def finish(draft: StepFolder) -> None:
    (draft.model / "weights").write_text(str(draft.drafted_by))
    draft.done.write_text(json.dumps({"attempt": draft.drafted_by}))


def state(model: Path, step: int) -> str:
    return (model / f"checkpoint-{step}" / "state").read_text()


def test_an_attempt_continues_the_draft_that_has_come_furthest_and_leaves_it_as_it_is(folder: StepFolder) -> None:
    first = attempt(folder, 1, 2, 4)
    attempt(folder, 2)
    save(folder.draft_of(2), 6)
    (folder.draft_of(2).model / "checkpoint-6" / "state").unlink()  # cut off: it is not complete
    third = attempt(folder, 3)
    assert drafts.newest_step(folder) == checkpoints.newest_step(third.model) == 4
    assert third.metrics.read_text() == "1\n2\n3\n"
    checkpoints.set_aside_unusable(third.model)
    save(third, 6)
    assert checkpoints.newest_step(first.model) == 4
    assert first.metrics.read_text() == "1\n"


def test_a_published_run_has_every_checkpoint_that_its_attempts_have_saved_on_the_way(folder: StepFolder) -> None:
    attempt(folder, 1, 2, 4)
    last = attempt(folder, 2, 6)
    finish(last)
    assert drafts.complete(folder) == [2]
    drafts.move_files(folder, 2)
    assert not folder.done.exists(), "it says so last, when all else is on the Volume"
    drafts.declare_done(folder, 2)
    assert drafts.remove_all(folder)
    assert [state(folder.model, step) for step in (2, 4, 6)] == ["1 at 2", "1 at 4", "2 at 6"]
    assert not any(path.is_symlink() for path in folder.model.iterdir())
    assert not list(folder.path.glob("attempt-*/draft"))


def test_a_publication_that_was_cut_off_is_finished_by_the_next_container(folder: StepFolder) -> None:
    attempt(folder, 1, 2, 4)
    last = attempt(folder, 2, 6)
    finish(last)
    folder.model.mkdir()
    (last.model / "weights").rename(folder.model / "weights")
    (last.model / "checkpoint-6").rename(folder.model / "checkpoint-6")
    for _ in range(2):
        drafts.move_files(folder, 2)
    drafts.declare_done(folder, 2)
    assert [state(folder.model, step) for step in (2, 4, 6)] == ["1 at 2", "1 at 4", "2 at 6"]
    assert (folder.model / "weights").read_text() == "2"
    assert folder.metrics.read_text() == "1\n2\n"


def test_a_run_that_an_earlier_version_has_begun_is_continued(folder: StepFolder) -> None:
    save(folder, 2)
    folder.metrics.write_text("0\n")
    draft = attempt(folder, 1)
    finish(draft)
    drafts.move_files(folder, 1)
    assert state(folder.model, 2) == "0 at 2"
    assert folder.metrics.read_text() == "0\n1\n"
