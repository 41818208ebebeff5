"""Volumes inside of a container: a commit carries out what it wrote, a reload brings in what others have committed.

The client itself repeats what Modal could not take (a commit up to 90 times, about a second apart). Repeated here is
what it gives up at once: a refusal, such as open files at the reload that follows a commit.

Errors leave as VolumeError. The client's own, raised out of a function, would look to whoever asks after the call as if
Modal could not be asked (`claims.UNANSWERED`).
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence

import modal
import modal.exception

PAUSES_S = (1.0, 2.0, 4.0)
"""Within the ten seconds that a preempted call has left for it."""


class VolumeError(Exception):
    """A Volume refused several times."""


def commit(volumes: Sequence[modal.Volume], pauses_s: Sequence[float] = PAUSES_S) -> None:
    """One after the other, so that a mark on the second never says what the first has not taken. Raises VolumeError."""
    for volume in volumes:
        _insist(volume.commit, f"{volume.name} could not be committed", pauses_s)


def commit_what_can_be(volumes: Sequence[modal.Volume], pauses_s: Sequence[float] = ()) -> None:
    """Each, whatever becomes of the others: while a worker has files open, a refusal is nothing to stop it for."""
    for volume in volumes:
        _try(volume.commit, f"{volume.name} could not be committed now", pauses_s)


def reload(volumes: Sequence[modal.Volume]) -> None:
    """Nothing of this container may be open on them. Raises VolumeError."""
    for volume in volumes:
        _insist(volume.reload, f"{volume.name} could not be reloaded", PAUSES_S)


def reload_what_can_be(volumes: Sequence[modal.Volume], pauses_s: Sequence[float] = PAUSES_S) -> None:
    for volume in volumes:
        _try(volume.reload, f"{volume.name} could not be reloaded", pauses_s)


def _try(act: Callable[[], None], complaint: str, pauses_s: Sequence[float]) -> None:
    try:
        _insist(act, complaint, pauses_s)
    except VolumeError as error:
        _complain(str(error))


@functools.cache
def _complain(text: str) -> None:
    """Once: the same may be refused every ten seconds, for a day."""
    print(text, flush=True)


def _insist(act: Callable[[], None], complaint: str, pauses_s: Sequence[float]) -> None:
    for pause_s in (*pauses_s, None):
        try:
            return act()
        except (RuntimeError, modal.exception.Error) as error:
            if pause_s is None:
                raise VolumeError(f"{complaint}: {error}") from None
        time.sleep(pause_s)
