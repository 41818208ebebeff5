"""Notices of sweeps on Modal, with no client alive: more entries of the Dict of claims, and calls of `notify`.

    watched/<sweep>      which jobs a sweep has, and the variable that has the webhook's address
    spent/<sweep>/<job>  the dollars that a run has spent of the sweep's budget
    notice/<id>          a notice, claimed by the call that sends it
    sent/<id>            it was sent
    unsent/<id>          why the newest try failed

A call that ends a job looks at the sweeps that have the job. For each notice that is due it makes a call of `notify`,
a function on a CPU, so no GPU waits for a webhook. A notice that is not confirmed by its `sent` entry, and whose call
has ended, gets a new call from whichever container ends a job next, or from a client that follows the sweep. Two calls
of one notice send the same id.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any, Self

import modal
import modal.exception

from modal_app.cloud import budget
from modal_app.cloud.claims import awaited, is_live, last_claim
from modal_app.cloud.connection import lost_connections
from modal_app.cloud.job import Job
from modal_app.cloud.searches import waits_for
from modal_app.store import notice as notices
from modal_app.store.layout import StepFolder
from modal_app.store.notice import Notice
from modal_app.store.read_json import fields_of
from modal_app.store.step import OutcomeStatus, Share
from modal_app.store.webhook import NotSent, send

FUNCTION = "notify"
MOST_OF_IT = 0.8
"""The part of a budget at which a notice is due."""
LOST = "lost: its call on Modal has ended without a result"
SPENT_EVERY_S = 60.0
"""How often a container records what it has spent."""

Entries = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class WatchedSweep:
    """A sweep that notifies, as its client has submitted it."""

    sweep: str
    variable: str
    """The environment variable with the webhook's address, in the secret."""
    app: str
    """The app with the function that sends."""
    claims: str
    needs: Mapping[str, list[str]]
    """Each job that was not done, and the jobs that it waits for."""
    earlier: Mapping[str, str] = field(default_factory=dict)
    """Job -> its last call before, which had ended: what is known of it is of an earlier launch."""
    finished: int = 0
    """Runs that had finished before."""
    budget: float | None = None
    """Dollars."""
    set_aside: float = 0.0
    """The part of them that is for preparing, and no run's share."""
    further: bool = False
    """Whether further jobs follow, so that the sweep is not done when these have ended."""

    def watch(self, claims: modal.Dict) -> None:
        claims.update({f"watched/{self.sweep}": asdict(self), **awaited(self.needs)})

    @classmethod
    def of(cls, entry: Mapping[str, Any] | None) -> Self | None:
        """None without an entry, and for one of a version of axosweep that has written less."""
        known = fields_of(cls, entry or {})
        needed = {one.name for one in fields(cls) if one.default is MISSING and one.default_factory is MISSING}
        return cls(**known) if needed <= known.keys() else None


def forget(claims: modal.Dict, entries: Entries, sweep: str) -> None:
    """Remove the list of jobs that an earlier launch of a sweep has put here, and the record of its spent budget."""
    for key in entries:
        if key == f"watched/{sweep}" or key.startswith(f"spent/{sweep}/"):
            claims.pop(key, None)


def look_after(claims: modal.Dict, entries: Entries, name: str) -> None:
    """A job has ended: start the notices that are due in the sweeps that have it. `entries`: a copy of the claims, or
    nothing if no sweep that is watched has the job.

    Raises nothing, since a notice that cannot be sent must not affect the job.
    """
    try:
        with lost_connections():
            for watched in _watching(entries, name):
                start_due(claims, watched)
    except modal.exception.Error as error:
        print(f"axosweep: whether a notice is due could not be found out ({type(error).__name__}).")


def start_due(claims: modal.Dict, watched: WatchedSweep) -> None:
    """Make a call for each notice of a sweep that is due, unless it was sent or a live call sends it."""
    entries = dict(claims.items())

    def is_lost(name: str, call: str) -> bool:
        return not is_live(call) and claims.get(f"ended/{name}") == entries.get(f"ended/{name}")

    for notice in due(watched, entries, is_lost):
        _start(claims, entries, watched, notice)


def due(watched: WatchedSweep, entries: Entries, is_lost: Callable[[str, str], bool]) -> list[Notice]:
    """The notices that are due for the state of a sweep's jobs, sent or not. `is_lost`: whether a job's call has ended
    without an entry. Pure, but for that."""
    found = [
        notices.failed(watched.sweep, name, ended["by"], ended["message"])
        for name in watched.needs
        if (ended := _ended(watched, entries, name)) and ended["status"] == OutcomeStatus.FAILED
    ]
    spent = watched.set_aside + sum(_spent(entries, watched.sweep).values())
    if watched.budget and spent >= MOST_OF_IT * watched.budget:
        found.append(notices.budget(watched.sweep, watched.budget, spent))
    if watched.further:
        return found
    statuses, going_on = dict[str, str](), waits_for(entries)
    for name in watched.needs:
        status = None if name in going_on else _status(watched, entries, name, is_lost)
        if status is None:
            return found
        statuses[name] = status
    counts = Counter(status for name, status in statuses.items() if name.startswith("train/"))
    counts[OutcomeStatus.SUCCEEDED.value] += watched.finished
    ends = sorted((name, status, _by(entries, name)) for name, status in statuses.items())
    fingerprint = hashlib.sha256(json.dumps(ends).encode()).hexdigest()[:12]
    lost = [name for name, status in statuses.items() if status == OutcomeStatus.LOST]
    found += [notices.failed(watched.sweep, name, str(last_claim(entries.get, name)[1]), LOST) for name in lost]
    return [*found, notices.done(watched.sweep, fingerprint, +counts)]


def watched_of(entries: Entries, sweep: str) -> WatchedSweep | None:
    raw = entries.get(f"watched/{sweep}")
    return WatchedSweep.of(raw)


def unsent(entries: Entries, sweep: str) -> dict[str, str]:
    """The claimed notices of a sweep that are not confirmed: id -> why the newest try failed, empty without one."""
    ids = [key.partition("/")[2] for key in entries if key.startswith(f"notice/{sweep}/")]
    return {id: str(entries.get(f"unsent/{id}") or "") for id in ids if f"sent/{id}" not in entries}


def deliver(text: str) -> dict[str, Any]:
    """What `notify` does: send a notice. Raises RuntimeError if it was not sent, so that Modal starts the call again;
    without the address."""
    request = json.loads(text)
    notice, me = Notice.from_json(request["notice"]), modal.current_function_call_id() or ""
    claims = modal.Dict.from_name(request["claims"], create_if_missing=True)
    key = f"notice/{notice.id}"
    if claims.contains(f"sent/{notice.id}"):
        return {"id": notice.id, "status": "sent before"}
    if not claims.put(key, {"by": me}, skip_if_exists=True):
        other = claims.get(key)["by"]
        if other != me and is_live(other):
            return {"id": notice.id, "status": "claimed"}
        claims.put(key, {"by": me})
    try:
        send(notice, request["variable"])
    except NotSent as error:
        claims.put(f"unsent/{notice.id}", str(error))
        raise RuntimeError(f"{notice.id}: {error}") from None
    claims.put(f"sent/{notice.id}", time.time())
    claims.pop(f"unsent/{notice.id}", None)
    return {"id": notice.id, "status": "sent"}


@dataclass(slots=True)
class Spending:
    """What a run has spent of its sweep's budget, recorded while it works. Raises nothing."""

    claims: modal.Dict
    job: Job
    share: Share | None
    folder: StepFolder
    _next: float = 0.0

    def tick(self, *, now: bool = False) -> None:
        """Record it, at most every minute unless `now`."""
        if self.share is None or not (now or time.monotonic() >= self._next):
            return
        self._next = time.monotonic() + SPENT_EVERY_S
        try:
            with lost_connections():
                self._note(self.share)
        except modal.exception.Error:
            pass  # it is tried again a minute later

    def _note(self, share: Share) -> None:
        raw = self.claims.get(f"watched/{self.job.sweep}")
        if (watched := WatchedSweep.of(raw)) is None or watched.budget is None:
            return
        dollars = budget.seconds(self.folder) * share.dollars / share.seconds
        self.claims.put(f"spent/{self.job.sweep}/{self.job.name}", dollars)
        entries = dict(self.claims.items())
        spent = watched.set_aside + sum(_spent(entries, watched.sweep).values())
        if spent >= MOST_OF_IT * watched.budget:
            _start(self.claims, entries, watched, notices.budget(watched.sweep, watched.budget, spent))


def _watching(entries: Entries, name: str) -> list[WatchedSweep]:
    found = [WatchedSweep.of(raw) for key, raw in entries.items() if key.startswith("watched/")]
    return [one for one in found if one is not None and name in one.needs]


def _start(claims: modal.Dict, entries: Entries, watched: WatchedSweep, notice: Notice) -> None:
    key, claimed = f"notice/{notice.id}", entries.get(f"notice/{notice.id}")
    if f"sent/{notice.id}" in entries or (claimed is not None and is_live(claimed["by"])):
        return
    request = {"notice": notice.to_json(), "variable": watched.variable, "claims": watched.claims}
    call = str(modal.Function.from_name(watched.app, FUNCTION).spawn(json.dumps(request)).object_id)
    claims.put(key, {"by": call}, skip_if_exists=claimed is None)


def _status(watched: WatchedSweep, entries: Entries, name: str, is_lost: Callable[[str, str], bool]) -> str | None:
    """How a job has ended; None if it has not."""
    if name not in watched.needs:
        return OutcomeStatus.SUCCEEDED.value  # it was done before
    if f"cancelled/{name}" in entries:
        return "cancelled"
    for need in watched.needs[name]:
        status = _status(watched, entries, need, is_lost)
        if status != OutcomeStatus.SUCCEEDED:
            return None if status is None else "not started"
    if ended := _ended(watched, entries, name):
        return str(ended["status"])
    if f"refused/{name}" in entries:
        return "not started"
    _, call = last_claim(entries.get, name)
    if call is None or call == watched.earlier.get(name):
        return None  # about to be called
    return OutcomeStatus.LOST.value if is_lost(name, call) else None


def _ended(watched: WatchedSweep, entries: Entries, name: str) -> Mapping[str, Any] | None:
    """The entry that a job's call wrote when it ended in this launch; None if it has not ended, or goes on."""
    ended: Mapping[str, Any] | None = entries.get(f"ended/{name}")
    if ended is None or ended["by"] == watched.earlier.get(name):
        return None
    goes_on = ended["status"] == OutcomeStatus.AT_RUNG and last_claim(entries.get, name)[1] != ended["by"]
    return None if goes_on else ended


def _by(entries: Entries, name: str) -> str:
    return str((entries.get(f"ended/{name}") or {}).get("by"))


def _spent(entries: Entries, sweep: str) -> dict[str, float]:
    return {key: float(dollars) for key, dollars in entries.items() if key.startswith(f"spent/{sweep}/")}
