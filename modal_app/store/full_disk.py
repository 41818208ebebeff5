"""A full disk: an error that says so, the place it is about, and what frees space. Standard library."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path

from modal_app.store.durable import outlasts
from modal_app.store.out_of_memory import chain

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_TEXTS = ("no space left on device", "disk quota exceeded", "(os error 28)")
"""As libraries write it that are not in Python: their exceptions have no errno."""
FREE_SOME = "Free some space: `axosweep gc` removes what no run needs, `axosweep rm` removes runs."
LARGER_DISK = "Request more of the container's disk, such as executor.modal.disk_gib=1000, or set save_total_limit=1."
ALMOST_FULL_BYTES = 64 * 1024
"""With less room, a worker may be unable to write why it ended."""


def full_disk(error: BaseException, places: Iterable[Path] = ()) -> str:
    """A sentence about the full disk that an error is about; empty if it is about something else.

    `places`: where the failed process writes, for an error that does not name its file.
    """
    for one in chain(error):
        if isinstance(one, OSError) and one.errno in FULL:
            return _sentence(one.filename or _full_one(places), os.strerror(one.errno))
        if any(text in str(one).lower() for text in _TEXTS):
            return _sentence(_full_one(places), os.strerror(errno.ENOSPC))
    if isinstance(error, RuntimeError) and (place := _full_one(places)):
        return _sentence(place, os.strerror(errno.ENOSPC))  # PyTorch's writer says only that it could not write
    return ""


def is_full(place: Path) -> bool:
    """Whether the disk of a place has no room left. The place need not exist."""
    for path in (place, *place.parents):
        try:
            found = os.statvfs(path)
        except OSError:
            continue
        if not found.f_blocks:  # not a disk, such as /proc
            return False
        return found.f_bavail * found.f_frsize < ALMOST_FULL_BYTES or (found.f_files > 0 and found.f_favail == 0)
    return False


def _full_one(places: Iterable[Path]) -> str:
    return next((str(place) for place in places if is_full(place)), "")


def _sentence(place: object, why: str) -> str:
    way_out = FREE_SOME if outlasts(Path(str(place))) else LARGER_DISK
    return f"{place}: {why}. {way_out}" if place else f"{why}. {way_out}"
