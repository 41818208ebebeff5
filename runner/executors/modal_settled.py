"""What Modal has done and is doing when a launcher comes to submit a plan."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import compress
from typing import Any

from modal_app.cloud.claims import is_at_work, is_starting, last_claim
from modal_app.cloud.job import mark_name
from runner.executors.modal_mirror import AT_A_TIME, ModalMirror, Submitted
from runner.executors.modal_submission import MirroredStep, before

STARTING_S = 60.0
STARTING_POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class Settled:
    """Looked up in this order, so that a job which ends meanwhile is in both sets, never in none."""

    entries: Mapping[str, Any]
    """A copy of the claims."""
    at_work: Set[str]
    """The jobs on which calls work."""
    done: Set[str]
    """The marks of what is done."""


def wait_until_settled(mirror: ModalMirror, steps: Sequence[MirroredStep], submitted: Submitted) -> Settled:
    """Look until no finished call is still starting the jobs that wait for it. Those are not claimed yet, and calling
    them from here, too, would rent a GPU for nothing. Waits at most a minute."""
    awaited = {name for step in steps for name in before(step, steps)}
    deadline = time.monotonic() + STARTING_S
    while True:
        entries = mirror.claims_of(steps, submitted, copy=False)
        calls = {step.name: call for step in steps if (call := last_claim(entries.get, step.name)[1])}
        with ThreadPoolExecutor(AT_A_TIME) as pool:
            at_work = set(compress(calls, pool.map(partial(is_at_work, entries.get), calls, calls.values())))
        done = mirror.done()
        ended = {name for name in awaited & at_work if mark_name(name) in done}
        starting = ended or any(is_starting(entries.get, name) for name in awaited)
        if not starting or time.monotonic() > deadline:
            return Settled(entries, at_work, done)
        time.sleep(STARTING_POLL_S)
