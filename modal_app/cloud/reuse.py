"""Whether this container takes another call after this one: only if nothing of the call is left in it.

A container ends after its call if the run did not succeed (or stop at a rung), if the call was asked to stop or failed,
if its worker did not end by itself, or if the container is not as it was before its first call (`traces`). Modal is
told before the call returns. If it cannot be told, the next call refuses to work here, and Modal starts that elsewhere.

This module's state is that of the container, which is one process.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from grpclib.exceptions import GRPCError

from modal_app.cloud import meter, scratch, traces, volumes
from modal_app.cloud.connection import lost_connections
from modal_app.cloud.job import CACHE_MOUNT, RUNS_MOUNT, Job
from modal_app.cloud.traces import Places, State
from modal_app.store.durable import SCRATCH
from modal_app.store.step import OutcomeStatus

SETTLE_S, SETTLE_POLL_S = 5.0, 0.1
"""How long to wait for what goes away by itself: a new container takes longer."""
CLEAN = {OutcomeStatus.SUCCEEDED, OutcomeStatus.AT_RUNG, "claimed", "cancelled"}
"""The ends of a call after which its container may take another one. With the last two, it had nothing to do."""

PLACES = Places.usual((CACHE_MOUNT, RUNS_MOUNT), SCRATCH)


class ContainerOver(Exception):
    """This container takes no more calls, but has been given one. Modal starts that call again elsewhere."""


_first: State | None = None
"""How this container was before its first call."""
_calls = 0
"""How many it has had, with this one."""
_doubts: list[str] = []
"""Why it does not count as clean after this call, whatever is found."""
_over = ""
"""Why it takes no further call."""


def do_call(job: Job, do: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Do a call, then end this container unless it is clean. Raises ContainerOver."""
    global _first, _calls
    if not job.reused:
        return do()
    if _over:
        _stop_fetching()
        raise ContainerOver(f"this container was to take no further call: {_over}")
    if _first is None:
        scratch.empty()  # whatever its image has there
    _first, _calls = _first or traces.observe(PLACES), _calls + 1
    _doubts.clear()
    try:
        result = do()
        why = _doubt_about(result["status"])
    except BaseException as error:  # the process boundary: it is raised again
        _end(job, f"its call ended with {type(error).__name__}", record=isinstance(error, Exception))
        raise
    if why:
        _end(job, why)
    return result


def doubt(why: str) -> None:
    """Let this container end after its call."""
    _doubts.append(why)


def note_stale_cache(refusal: str) -> None:
    """The cache Volume could not be reloaded: a container that has worked before may not see this call's dataset.

    Raises ContainerOver if it has, since its call would fail for that.
    """
    if _calls > 1:
        raise ContainerOver(f"this container cannot see what was prepared since its last call: {refusal}")
    doubt(refusal)


def _doubt_about(status: str) -> str:
    """Why this container has to end; empty if it is as clean as before its first call."""
    if status not in CLEAN and not _doubts:  # otherwise these say more
        doubt(f"its call ended as {status}")
    if _doubts:
        return "; ".join(_doubts)
    assert _first is not None
    deadline, looked = time.monotonic() + SETTLE_S, False
    while True:
        scratch.empty()
        left = traces.traces(_first, traces.observe(PLACES))
        if not left or time.monotonic() > deadline or (looked and not any(one.passing for one in left)):
            return "; ".join(one.text for one in left)
        looked = True  # twice: a process may have written something when it had just been seen
        time.sleep(SETTLE_POLL_S)


def _end(job: Job, why: str, *, record: bool = True) -> None:
    """`record`: there is time to commit the reason. Otherwise, Modal's client commits it when the container exits."""
    global _over
    _over = why  # first: whatever becomes of the rest, no further call works here
    _stop_fetching()
    print(f"This container takes no further call: {why}.", flush=True)
    meter.end_container(why)
    if record:
        volumes.commit_what_can_be([volumes.named(job.runs_volume)])


def _stop_fetching() -> None:
    """A refusal is printed: `_over` stops the next call."""
    import modal.experimental  # imported late: it takes a fifth of a second, and most containers never need it

    try:
        with lost_connections():
            modal.experimental.stop_fetching_inputs()
    except (TimeoutError, modal.exception.Error, GRPCError, OSError) as error:
        print(f"Modal could not be told that this container takes no further call: {error}", flush=True)
