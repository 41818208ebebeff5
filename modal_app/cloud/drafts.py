"""The drafts of a step's files: what an attempt starts from, and how a complete one becomes the step's result.

Modal may deliver one input to two containers, and commits what each of them has written when it ends. So an attempt
writes into its own draft only, and only the draft that `executions.chosen` names is published. `copies` puts large
files into a draft. Standard library.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from modal_app.process.attempt import clean, relative_target
from modal_app.store import checkpoints
from modal_app.store.layout import StepFolder
from modal_app.store.step import write_atomically


def newest_step(folder: StepFolder) -> int:
    """The step of the newest complete checkpoint of all attempts; 0 without one."""
    return max((checkpoints.newest_step(one.model) for one in _versions(folder)), default=0)


def begin(folder: StepFolder, number: int, scratch: Path) -> StepFolder:
    """Create the draft of an attempt; returns the draft as the worker writes it, with its large files in `scratch`. It
    continues the draft that has come furthest, if any.

    That draft may belong to a container that is still running. So its files are copied, and its checkpoints, which are
    large, are linked: nothing writes into a complete checkpoint. In `scratch`, each of their files is linked: the
    worker makes room by removing folders, and does not remove links to them.
    """
    source = max(_versions(folder), key=lambda one: (checkpoints.newest_step(one.model), one.drafted_by))
    draft, written = folder.draft_of(number), folder.draft_of(number, scratch)
    draft.files.mkdir(parents=True)
    written.model.parent.mkdir(parents=True)
    for ours, theirs in zip(_small_files(draft), _small_files(source), strict=True):
        if theirs.exists():
            shutil.copyfile(theirs, ours)
    for checkpoint in checkpoints.all_checkpoints(source.model):
        if checkpoints.is_complete(checkpoint):
            draft.model.mkdir(exist_ok=True)
            link = draft.model / checkpoint.name
            link.symlink_to(relative_target(link.parent, checkpoint))
            _link_files(checkpoint.resolve(), written.model / checkpoint.name)
    return written


def _link_files(checkpoint: Path, place: Path) -> None:
    for path in checkpoint.rglob("*"):
        if path.is_file():
            link = place / path.relative_to(checkpoint)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)


def _small_files(folder: StepFolder) -> tuple[Path, ...]:
    """The small files that the next attempt continues."""
    return folder.metrics, folder.tracking, folder.losses, folder.losses_before, folder.losses_best


def complete(folder: StepFolder) -> list[int]:
    """The attempts whose drafts are complete, oldest first."""
    return [one.number for one in folder.attempts() if folder.draft_of(one.number).done.exists()]


def move_files(folder: StepFolder, number: int) -> None:
    """Move the files of a complete draft to their place, except the one that says that the step has succeeded: that one
    is written by `declare_done`, when all others are on the Volume. If this was cut off, it can be repeated."""
    draft, target = folder.draft_of(number), folder.done.parent
    for link in checkpoints.all_checkpoints(draft.model):
        if link.is_symlink():
            checkpoint = link.resolve()
            link.unlink()
            if checkpoint.exists():
                checkpoint.rename(link)
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(draft.files.iterdir()):
        if path != draft.done:
            _move(path, target / path.name)


def declare_done(folder: StepFolder, number: int) -> None:
    """Publish the file whose presence means that the step has succeeded."""
    write_atomically(folder.done, folder.draft_of(number).done.read_text(encoding="utf-8"))


def remove_all(folder: StepFolder) -> int:
    """Remove what attempts have left behind. Returns how many had left anything."""
    left = [one for one in folder.attempts() if one.draft.exists()]
    for attempt in left:
        clean(attempt)
        shutil.rmtree(attempt.draft)
        shutil.rmtree(attempt.copying, ignore_errors=True)
    return len(left)


def _versions(folder: StepFolder) -> Iterator[StepFolder]:
    """The step's own files, which earlier versions wrote directly, and every draft of them."""
    yield folder
    for attempt in folder.attempts():
        yield folder.draft_of(attempt.number)


def _move(source: Path, target: Path) -> None:
    if source.is_dir() and not source.is_symlink() and target.is_dir():
        for path in sorted(source.iterdir()):
            _move(path, target / path.name)
        source.rmdir()
    else:
        source.replace(target)
