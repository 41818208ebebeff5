"""A mirror of Modal's Volumes on this machine: the small files of a sweep's steps, in the store's own layout.

A sweep's id is enough to make one on any machine: all it shows is on the Volumes and in the state of the calls.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import modal
import modal.exception

from modal_app.cloud.claims import is_live, job_of, last_claim, waiting_in
from modal_app.cloud.connection import lost_connections
from modal_app.cloud.container import TICK_S
from modal_app.cloud.rung_entries import DictEntries
from modal_app.store.layout import SEEN, Store
from modal_app.store.state import REMOTE, Phase, observe
from modal_app.store.step import OutcomeStatus, StepKind, write_atomically
from runner.cost.spent import containers, fetch_folder
from runner.executors.modal_copies import Copies
from runner.executors.modal_errors import UNREACHED
from runner.executors.modal_submission import MirroredStep, Names, before
from runner.store.ledger import Event, Ledger, Record
from runner.store.run_state import unbegun

POLL_S = 2.0
POLL_PER_STEP_S = 0.05
"""Between two looks, unless a look takes longer: the more steps, the less often they are looked at."""
AT_A_TIME = 8
"""Requests to Modal at the same time."""

Entries = Mapping[str, Any]
"""A copy of the claims: `modal_app.cloud.claims` explains them."""
Submitted = Mapping[str, Sequence[str]]
"""Job name -> the calls that a launcher has recorded."""
NOTHING: Submitted = {}
CANCELLED = "cancelled before it started"


@dataclass(slots=True)
class ModalMirror:
    """`store` is the mirror; the originals are on the Volumes."""

    store: Store
    names: Names
    _copies: Copies = field(init=False)
    claims: modal.Dict = field(init=False)
    _over: set[str] = field(default_factory=set)
    """Calls that have ended."""
    _settled: dict[str, str | None] = field(default_factory=dict)
    """Step -> its last call, for steps that were copied while no call worked on them. They need no further copy until
    they have a new call."""
    _awaited: str | None = None
    """A call that was live at the last look: of those, the one that was called last."""

    def __post_init__(self) -> None:
        self._copies = Copies(self.store, self.names.cache_volume, self.names.runs_volume)
        self.claims = modal.Dict.from_name(self.names.claims, create_if_missing=True)

    def refresh(self, steps: Sequence[MirroredStep], submitted: Submitted = NOTHING) -> bool:
        """Bring the steps up to date; True when none of them is live. Raises the errors of Modal's client."""
        entries, live = self._live(steps, submitted)
        goes_on = {
            step.name: step.name in live
            or (f"cancelled/{step.name}" not in entries and any(name in live for name in before(step, steps)))
            for step in steps
        }
        begun = {job_of(key) for key in entries if key.startswith("attempt/")}

        def update(step: MirroredStep) -> None:
            call = last_claim(entries.get, step.name)[1]
            waits = step.name in entries and step.name not in begun and not step.fetches
            self._update(step, call, works=step.name in live, goes_on=goes_on[step.name], waits=waits)

        self.copy_searches(steps, entries)
        with ThreadPoolExecutor(AT_A_TIME) as pool:
            list(pool.map(update, steps))
        return not any(goes_on.values())

    def wait(self, seconds: float) -> None:
        """Wait for so long, or until the last of the live calls has ended: then probably all have, and no call waits in
        vain for the end of a sweep."""
        until = time.monotonic() + seconds
        with contextlib.suppress(*UNREACHED):
            if self._awaited and not is_live(self._awaited, seconds):
                return
        time.sleep(max(0.0, until - time.monotonic()))

    def copy_searches(self, steps: Sequence[MirroredStep], entries: Entries) -> None:
        """Bring the entries of the searches of these steps up to date: from the claims, and what these have no more
        from the Volume."""
        for search in {step.search for step in steps if step.search}:
            DictEntries(self.claims, search, self.store).write_missing(entries)
            self._copies.copy_search(search)

    def done(self) -> set[str]:
        """The marks of every finished step and fetched model."""
        return self._copies.done()

    def claims_of(
        self, steps: Sequence[MirroredStep], submitted: Submitted = NOTHING, *, copy: bool = True
    ) -> dict[str, Any]:
        """The claims. If that of an unfinished step has vanished (Modal deletes entries, and a user may clear the
        Dict), a live call of which there is a record takes its place. `copy`: first get the records from the Volumes.
        """
        entries = dict(self.claims.items())
        unclaimed = [step for step in steps if entries.get(step.name) is None and not self._is_done(step)]
        if copy:
            new = [step for step in unclaimed if self._settled.get(step.name, "") is not None]
            with ThreadPoolExecutor(AT_A_TIME) as pool:
                list(pool.map(self._copies.copy, new))
            self._settled |= dict.fromkeys((step.name for step in new), None)
        folders = {step.name: self.store.folder(step.kind, step.key) for step in unclaimed}
        folders |= {name: fetch_folder(self.store, name) for step in unclaimed for name in step.fetches}
        for name, folder in folders.items():
            recorded = [one.call for one in containers(folder) if not one.ended]
            for call in (*recorded, *submitted.get(name, ())) if entries.get(name) is None else ():
                if self._is_live(call):
                    entries[name] = {"call": call, "sweep": ""}
        return entries

    def note_unbegun(self, steps: Sequence[MirroredStep], ledger: Ledger) -> None:
        """Record why steps never started, once everything has ended. They have no folder that could say it."""
        entries = dict(self.claims.items())
        noted = unbegun(ledger.records())
        for step in steps:
            if observe(self.store, step.kind, step.key).phase is not Phase.ABSENT:
                continue
            if self.store.folder(step.kind, step.key).removed.exists():
                continue
            cancelled = f"cancelled/{step.name}" in entries
            why = CANCELLED if cancelled else _why_not_begun(entries, step.name, before(step, steps))
            if step.key not in noted or noted[step.key].message != why:
                status = str(Phase.STOPPED if cancelled else Phase.LOST)
                ledger.append(Record(Event.FINISHED, step.kind, step.key, status=status, message=why))

    def cancel(self, steps: Sequence[MirroredStep], sweep: str | None) -> set[str]:
        """End the calls that work on these runs, with their containers, and keep waiting runs from starting.

        `sweep`: the sweep, when these are all of its runs. Its datasets and models are then ended, too, unless another
        sweep works on them or waits for them. Returns the names of the ended jobs. If Modal refuses to end a call, that
        is raised when all others have ended.
        """
        claims = self.claims
        mine = {step.name for step in steps if step.kind is not StepKind.PREPROCESS}
        claims.update({f"cancelled/{name}": time.time() for name in mine})
        entries = self.claims_of(steps)
        calls = {name: call for name in mine if (call := last_claim(entries.get, name)[1])}
        if sweep is not None:
            shared = {name for step in steps for name in (step.name, *step.fetches)} - mine
            calls |= {name: call for name in shared if (call := _only_for(entries, name, sweep))}
        with ThreadPoolExecutor(AT_A_TIME) as pool:
            ended = {name: pool.submit(_end_call, call) for name, call in calls.items()}
        return {name for name, one in ended.items() if one.result()}

    def _live(self, steps: Sequence[MirroredStep], submitted: Submitted) -> tuple[Entries, set[str]]:
        """The claims, and the jobs that a call works on or will work on.

        A call starts others before it ends. So nothing is live only when a look after the end of the last call finds
        no new calls.
        """
        names = list(dict.fromkeys(name for step in steps for name in (*step.fetches, step.name)))
        calls: dict[str, str] | None = None
        while True:
            entries, before = self.claims_of(steps, submitted), calls
            calls = {name: call for name in names if (call := last_claim(entries.get, name)[1])}
            with ThreadPoolExecutor(AT_A_TIME) as pool:
                alive = pool.map(self._is_live, calls.values())
                live = [name for name, goes_on in zip(calls, alive, strict=True) if goes_on]
            if live or calls == before:
                self._awaited = calls[live[-1]] if live else None
                return entries, set(live)

    def _is_live(self, call: str) -> bool:
        if call not in self._over and not is_live(call):
            self._over.add(call)
        return call not in self._over

    def _update(self, step: MirroredStep, call: str | None, *, works: bool, goes_on: bool, waits: bool) -> None:
        """`works`: its last call is live; `goes_on`: that, or a call of a step that it needs; `waits`: its call has no
        container yet, so there is nothing new to copy."""
        if self._is_done(step):
            self._copies.await_last_word(step, live=goes_on)
            return
        known = waits and self.store.folder(step.kind, step.key).path.exists()
        if not known if works else self._settled.get(step.name, "") != call:
            self._copies.copy(step)
        if not works:
            self._settled[step.name] = call
        self._note(step, live=goes_on)

    def _is_done(self, step: MirroredStep) -> bool:
        return observe(self.store, step.kind, step.key).phase is Phase.SUCCEEDED

    def _note(self, step: MirroredStep, *, live: bool) -> None:
        """Store what the mirror's files do not show: whether the step is still live on Modal."""
        folder = self.store.folder(step.kind, step.key).path
        if folder.exists():
            write_atomically(folder / REMOTE, json.dumps({"live": live, "at": time.time()}))


def follow(
    mirror: ModalMirror,
    steps: Sequence[MirroredStep],
    ledger: Ledger,
    watch: Callable[[], None],
    start_more: Callable[[], bool] = lambda: False,
) -> None:
    """Look until everything has ended, calling `watch` after each look. `start_more`: whether it has started something
    when everything had ended."""
    # A look asks of each call whether it has ended, and containers write news every ten seconds.
    pause = min(max(POLL_S, POLL_PER_STEP_S * len(steps)), TICK_S)
    began = time.monotonic()
    while not look_once(mirror, steps, ledger) or start_more():
        watch()
        mirror.wait(max(pause, time.monotonic() - began))
        began = time.monotonic()
    watch()


def submitted_calls(ledger: Ledger) -> Submitted:
    """The calls of which a ledger has a record."""
    calls: dict[str, tuple[str, ...]] = {}
    for record in ledger.records():
        if call := record.facts.get("call"):
            calls[record.message] = (*calls.get(record.message, ()), str(call))
    return calls


def look_once(mirror: ModalMirror, steps: Sequence[MirroredStep], ledger: Ledger) -> bool:
    """Bring a sweep's mirror up to date, and note how old it is from now on; True when everything has ended.

    While Modal cannot be reached, nothing is known to have ended.
    """
    try:
        with lost_connections():
            over = mirror.refresh(steps, submitted_calls(ledger))
            if over:
                mirror.note_unbegun(steps, ledger)
    except UNREACHED:
        return False
    write_atomically(ledger.folder / SEEN, json.dumps({"at": time.time(), "over": over}))
    return over


def _end_call(call: str) -> bool:
    """Whether it was still live."""
    live = is_live(call)
    if live:
        modal.FunctionCall.from_id(call).cancel(terminate_containers=True)
    return live


def _why_not_begun(entries: Entries, name: str, before: Sequence[str]) -> str:
    if refusal := entries.get(f"refused/{name}"):
        return f"{refusal}; run the same command again to start it"
    for one in before:
        if refusal := entries.get(f"refused/{one}"):
            return f"{one}: {refusal}; run the same command again to start it"
        call, ended = last_claim(entries.get, one)[1], entries.get(f"ended/{one}")
        if ended and ended["by"] == call and ended["status"] != OutcomeStatus.SUCCEEDED:
            return f"{one}: {ended['message']}"
    return "nothing works on it; run the same command again to start it"


def _only_for(entries: Entries, name: str, sweep: str) -> str | None:
    """The call that does a job for this sweep, if no other sweep waits for the job. The sweep's id is also the first
    part of the ids under which its follow-up steps are submitted."""
    call = last_claim(entries.get, name)[1]
    if call is None or not any(claim == {"call": call, "sweep": sweep} for claim in entries.values()):
        return None
    waiting = [found for found in map(waiting_in, entries) if found is not None and found.call == call]
    return call if {one.sweep.partition("/")[0] for one in waiting} <= {sweep} else None
