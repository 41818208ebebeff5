"""The launcher's part in the searches of a sweep on Modal: the entries that it puts before a run starts, and the runs
that it starts since no call does. Everything else is done on Modal: `modal_app.cloud.searches`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Self

import modal

from modal_app.cloud.claims import call_each, is_live, last_claim
from modal_app.cloud.connection import lost_connections
from modal_app.cloud.job import halved_jobs, job_name
from modal_app.cloud.rung_entries import DictEntries
from modal_app.cloud.searches import staying
from modal_app.halving.entries import entries_folder, stop_of
from modal_app.halving.halve import look, note_stop
from modal_app.store.layout import STEPS, Store
from modal_app.store.state import Phase, observe
from modal_app.store.step import StepKind
from runner.executors.modal_copies import listed, read_text
from runner.executors.modal_errors import UNREACHED
from runner.executors.modal_submission import MirroredStep, Names
from runner.store.ledger import Event, Ledger, Record


@dataclass(slots=True)
class ModalSearches:
    """`store` is the mirror. It has the entries that its last look at the Volume has found."""

    store: Store
    names: Names
    claims: modal.Dict
    members: Mapping[str, Sequence[str]]
    """By the id of the search, the keys of its runs."""
    _started: set[str] = field(default_factory=set)
    """The jobs that were started from here. One that Modal cannot start is not called again and again."""

    @classmethod
    def of(cls, store: Store, names: Names, claims: modal.Dict, steps: Sequence[MirroredStep]) -> Self:
        members: dict[str, list[str]] = {}
        for step in steps:
            if step.search:
                members.setdefault(step.search, []).append(step.key)
        return cls(store, names, claims, members)

    def put(self) -> None:
        """Before anything is called: put what is only on this machine into the Dict and onto the Volume, and what Modal
        has forgotten back into the Dict. Then say of each stopped run that is among the best now that it goes on."""
        for search in self.members:
            self._look(search)

    def stay(self, entries: Mapping[str, Any]) -> set[str]:
        """The jobs of the runs that have stopped at a rung and do not go on now. `entries`: a copy of the claims."""
        return {name for search in self.members for name in staying(entries, search)}

    def start(self, sweep: str, ledger: Ledger) -> bool:
        """When everything has ended: start the runs that go on all the same, since the call that had to do it was lost.
        Whether there may be any; while Modal does not answer, that is not known."""
        try:
            with lost_connections():
                return any(self._start(search, sweep, ledger) for search in self.members)
        except UNREACHED:
            return True

    def _start(self, search: str, sweep: str, ledger: Ledger) -> bool:
        found = [*self._look(search), *self._without_entries(search)]
        entries = dict(self.claims.items())
        due = [name for run in found if self._is_due(name := job_name(StepKind.TRAIN, run), entries)]
        if not due:
            return False
        jobs = halved_jobs(read_text(modal.Volume.from_name(self.names.runs_volume), f"sweeps/{sweep}/{STEPS}"))
        self._started.update(due)
        for name in due:
            ledger.append(Record(Event.SUBMITTED, StepKind.TRAIN, _run(name), message=name))
        following = [(last_claim(entries.get, name)[0], jobs[name]) for name in due if name in jobs]
        call_each(self.claims, following, entries)
        entries = dict(self.claims.items())
        for name in due:
            facts = {"call": last_claim(entries.get, name)[1]}
            ledger.append(Record(Event.STARTED, StepKind.TRAIN, _run(name), message=name, facts=facts))
        return True

    def _without_entries(self, search: str) -> list[str]:
        """The members that another search has stopped, such as a narrower one that had begun them before. No call of
        this search sees that, and this search has no entries of them yet."""
        names = DictEntries(self.claims, search, self.store).items()
        decided = {name.rpartition("/")[2] for name in names if name.startswith(("stop/", "out/"))}
        return [
            run for run in self.members[search] if run not in decided and self._search_of_stop(run) not in ("", search)
        ]

    def _search_of_stop(self, run: str) -> str:
        """The search that has stopped a run at a rung; empty if none has."""
        state = observe(self.store, StepKind.TRAIN, run)
        return str(state.outcome.facts.get("search", "")) if state.outcome and state.phase is Phase.AT_RUNG else ""

    def _is_due(self, name: str, entries: Mapping[str, Any]) -> bool:
        if name in self._started or f"cancelled/{name}" in entries:
            return False
        if observe(self.store, StepKind.TRAIN, _run(name)).phase is not Phase.AT_RUNG:
            return False
        call = last_claim(entries.get, name)[1]
        return call is None or not is_live(call)

    def _look(self, search: str) -> dict[str, int]:
        entries = DictEntries(self.claims, search, self.store)
        self._note_stops(search, entries)
        found = look(entries)
        entries.write_missing(dict(self.claims.items()))
        self._upload(search)
        return found

    def _note_stops(self, search: str, entries: DictEntries) -> None:
        """Record the stops of runs whose call ended before it could do so."""
        there = entries.items()
        for run in self.members[search]:
            state = observe(self.store, StepKind.TRAIN, run)
            facts = state.outcome.facts if state.outcome and state.phase is Phase.AT_RUNG else {}
            if facts.get("search") == search and stop_of(facts["rung"], run) not in there:
                note_stop(entries, run, facts["rung"])

    def _upload(self, search: str) -> None:
        folder = entries_folder(self.store, search)
        volume = modal.Volume.from_name(self.names.runs_volume)
        there = {entry.path for entry in listed(volume, self._path(folder), recursive=True)}
        missing = [path for path in folder.rglob("*.json") if self._path(path) not in there]
        if missing:
            with volume.batch_upload(force=True) as batch:
                for path in missing:
                    batch.put_file(path, f"/{self._path(path)}")

    def _path(self, path: Any) -> str:
        return str(path.relative_to(self.store.root).as_posix())


def with_earlier_steps(volume: modal.Volume, sweep: str, new: str) -> str:
    """A sweep's file of steps, with the further steps that the file on the Volume has: runs may be added to a sweep, or
    resumed in it, while calls of other runs read the file."""
    there = any(PurePosixPath(entry.path).name == STEPS for entry in listed(volume, f"sweeps/{sweep}"))
    before, now = json.loads(read_text(volume, f"sweeps/{sweep}/{STEPS}")) if there else {}, json.loads(new)
    named = {job["name"]: job for file in (before, now) for job in file.get("halved", ())}
    merged = {part: {**before.get(part, {}), **now[part]} for part in ("steps", "waiting")}
    return json.dumps({**merged, "halved": list(named.values())})


def _run(name: str) -> str:
    return name.partition("/")[2]
