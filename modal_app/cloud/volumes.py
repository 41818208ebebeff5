"""Volumes inside a container: a commit sends what it has written, a reload gets what others have committed.

Modal's client repeats what Modal could not take (a commit up to 90 times, about a second apart). It gives up at once
when Modal refuses (such as open files at the reload that follows a commit): this module repeats those.

Errors leave as VolumeError. The client's own, raised out of a function, would look to a process that queries the call
as if Modal had not answered (`claims.UNANSWERED`).
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence

import modal
import modal.exception

from modal_app.cloud.connection import lost_connections

PAUSES_S = (1.0, 2.0, 4.0)
"""They fit into the ten seconds that a preempted call has left for it."""


class VolumeError(Exception):
    """A Volume refused several times."""


@functools.cache
def named(name: str) -> modal.Volume:
    """The Volume of that name, looked up once in this container."""
    return modal.Volume.from_name(name)


def commit(volumes: Sequence[modal.Volume], pauses_s: Sequence[float] = PAUSES_S) -> None:
    """Commit one after the other: the second has the marks of what is on the first. Raises VolumeError."""
    for volume in volumes:
        _insist(volume.commit, f"{volume.name} could not be committed", pauses_s)


def commit_what_can_be(volumes: Sequence[modal.Volume], pauses_s: Sequence[float] = ()) -> None:
    """Commit each, even if Modal refuses others: a refusal does not stop a worker that has files open."""
    for volume in volumes:
        _try(volume.commit, f"{volume.name} could not be committed now", pauses_s)


def reload(volumes: Sequence[modal.Volume]) -> None:
    """This container must have no files open on them. Raises VolumeError."""
    for volume in volumes:
        _insist(volume.reload, f"{volume.name} could not be reloaded", PAUSES_S)


def reload_what_can_be(volumes: Sequence[modal.Volume], pauses_s: Sequence[float] = PAUSES_S) -> list[str]:
    """Reload each, even if Modal refuses others; the refusals."""
    refusals = (_try(volume.reload, f"{volume.name} could not be reloaded", pauses_s) for volume in volumes)
    return [refusal for refusal in refusals if refusal]


def _try(act: Callable[[], None], complaint: str, pauses_s: Sequence[float]) -> str:
    """The refusal; empty if there was none."""
    try:
        _insist(act, complaint, pauses_s)
    except VolumeError as error:
        _complain(str(error))
        return str(error)
    return ""


@functools.cache
def _complain(text: str) -> None:
    """Print it only once: the same may be refused every ten seconds, for a day."""
    print(text, flush=True)


def _insist(act: Callable[[], None], complaint: str, pauses_s: Sequence[float]) -> None:
    for pause_s in (*pauses_s, None):
        try:
            with lost_connections():
                return act()
        except (RuntimeError, modal.exception.Error) as error:
            if pause_s is None:
                raise VolumeError(f"{complaint}: {error}") from None
        time.sleep(pause_s)
