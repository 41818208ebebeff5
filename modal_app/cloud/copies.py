"""What a worker has written to its container's disk, copied into the attempt's draft on the Volume. Standard library.

A checkpoint is copied to a folder that is not in the draft, and renamed when it is complete. So a draft never has half
of a checkpoint. While it is copied, hard links keep its files, which the trainer may remove to make room for newer
ones.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from modal_app.store import checkpoints
from modal_app.store.layout import Attempt, StepFolder
from modal_app.store.step import name_file

BLOCK = 8 * 2**20
Progress = Callable[[int], None]
"""Called before each block, with the number of bytes that are left. Raises an error to end the copying."""


@dataclass(slots=True)
class Copies:
    """`written`: the draft as its worker writes it, with `model` and `done` on the container's disk."""

    written: StepFolder
    _copied: dict[str, int] = field(default_factory=dict)
    """The checkpoints that are on the Volume, by name, and when each was completed."""

    @property
    def attempt(self) -> Attempt:
        return self.written.attempt(self.written.drafted_by)

    @property
    def draft(self) -> StepFolder:
        """The draft on the Volume."""
        return self.written.draft_of(self.written.drafted_by)

    def waiting(self) -> list[Path]:
        """The complete checkpoints of this attempt that are not on the Volume yet, newest first."""
        return [one for one in self._own() if self._copied.get(one.name) != _completed_at(one)]

    def newest_waits(self) -> bool:
        """Whether a checkpoint is newer than all that are on the Volume."""
        own = self._own()
        return bool(own) and self._copied.get(own[0].name) != _completed_at(own[0])

    def copy_checkpoint(self, checkpoint: Path, progress: Progress) -> bool:
        """Copy one to the Volume; False if the trainer removed it before its files could be linked."""
        completed_at = _completed_at(checkpoint)
        assert self.written.scratch is not None
        with _linked_files(checkpoint, self.written.scratch / "held") as linked:
            partial, target = self.attempt.copying / checkpoint.name, self.draft.model / checkpoint.name
            try:
                _copy_files(linked, partial, _files_below(linked), progress)
                if not checkpoints.is_complete(partial):
                    return False
                _remove(target)
                target.parent.mkdir(parents=True, exist_ok=True)
                partial.rename(target)
            finally:
                shutil.rmtree(self.attempt.copying, ignore_errors=True)
        self._copied[checkpoint.name] = completed_at
        return True

    def remove_gone(self, *, finished: bool = False) -> None:
        """Remove the checkpoints from the Volume that the worker has removed. Unless it has finished, the newest one
        that the run could go on from stays: the Trainer removes it before the next one is complete."""
        model = self.written.model
        damaged = [one.name.removeprefix(checkpoints.ASIDE) for one in model.glob(f"{checkpoints.ASIDE}*")]
        newest = 0 if finished else checkpoints.newest_to_resume(self.draft.model, without=damaged)
        for checkpoint in checkpoints.all_checkpoints(self.draft.model):
            is_gone = not os.path.lexists(model / checkpoint.name)
            if is_gone and checkpoints.step_number(checkpoint) != newest:
                _remove(checkpoint)

    def other_bytes(self) -> int:
        return sum(path.stat().st_size for path in self._others())

    def copy_others(self, progress: Progress) -> None:
        """Copy all but checkpoints and the "done" file: the draft counts only when that one is there."""
        made = self.written.done.parent
        _copy_files(made, self.draft.files, [path.relative_to(made) for path in self._others()], progress)

    def _own(self) -> list[Path]:
        """The complete checkpoints of this attempt, newest first. The files of earlier ones are links."""
        found = reversed(checkpoints.all_checkpoints(self.written.model))
        return [one for one in found if not (one / checkpoints.MARKER).is_symlink() and checkpoints.is_complete(one)]

    def _others(self) -> list[Path]:
        made, model = self.written.done.parent, self.written.model
        left_out = {*checkpoints.all_checkpoints(model), *model.glob(f"{checkpoints.ASIDE}*")}
        files = (made / path for path in _files_below(made))
        return [one for one in files if one != self.written.done and left_out.isdisjoint(one.parents)]


def size_of(folder: Path) -> int:
    """The bytes of all files below a folder; files that vanish meanwhile do not count."""
    total = 0
    for path in _files_below(folder):
        with contextlib.suppress(FileNotFoundError):
            total += (folder / path).stat().st_size
    return total


def _completed_at(checkpoint: Path) -> int:
    """0 for one that has vanished."""
    try:
        return (checkpoint / checkpoints.MARKER).stat().st_mtime_ns
    except FileNotFoundError:
        return 0


@contextlib.contextmanager
def _linked_files(folder: Path, place: Path) -> Iterator[Path]:
    """The files of a folder, as they are now, even if the folder is removed later."""
    try:
        for path in _files_below(folder):
            (place / path).parent.mkdir(parents=True, exist_ok=True)
            os.link(folder / path, place / path)
        linked = place
    except FileNotFoundError:  # the trainer is removing it: the copy will not be complete
        linked = place
    except OSError:  # this disk has no hard links
        linked = folder
    try:
        yield linked
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _files_below(folder: Path) -> list[Path]:
    """Relative to it. A checkpoint's marker is last."""
    found = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    return sorted(found, key=lambda path: (path.name == checkpoints.MARKER, path))


def _copy_files(source: Path, target: Path, names: Sequence[Path], progress: Progress) -> None:
    """Leaves none of the files if not all can be copied: on a full Volume, the file that says how the attempt has ended
    needs room."""
    left = sum((source / name).stat().st_size for name in names)
    try:
        for name in names:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            left = _copy_file(source / name, target / name, left, progress)
    except BaseException:
        for name in names:
            with contextlib.suppress(OSError):
                (target / name).unlink()
        raise


def _copy_file(source: Path, target: Path, left: int, progress: Progress) -> int:
    """Returns how many bytes are left."""
    with source.open("rb", buffering=0) as read, target.open("wb", buffering=0) as written:
        while True:
            progress(left)
            block = read.read(BLOCK)
            if not block:
                return left
            rest = memoryview(block)
            while rest:
                try:
                    rest = rest[written.write(rest) :]
                except OSError as error:
                    raise name_file(error, target) from None
            left -= len(block)


def _remove(path: Path) -> None:
    if path.is_symlink():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)
