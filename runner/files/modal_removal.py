"""Removes what a Removal lists from Modal's Volumes, with its marks and claims, so that a launch trains it again.

A Volume has no rename. So the "done" files are removed first: after a killed removal, the run counts as unfinished, and
the same command removes the rest.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import modal

from modal_app.cloud.claims import is_at_work, is_live, job_of, last_claim, waiting_in
from modal_app.cloud.job import DONE, job_name, mark_name
from modal_app.store.layout import REMOVED, SUBMISSION, Store
from modal_app.store.step import FOLLOW_UP_KINDS, StepKind
from runner.errors import SweepError
from runner.executors.modal_copies import listed
from runner.executors.modal_errors import explained
from runner.executors.modal_serve import deployments
from runner.executors.modal_submission import Names, read_submission
from runner.files.local_removal import clear_mirror, removal_note
from runner.files.modal_files import ModalFiles
from runner.files.removal_plan import KeptRun, Kind, Removal, ToDelete

DEFAULT = Names("axosweep-cache", "axosweep-runs", "axosweep-claims")
WORKING = "a call on Modal works on it or waits to do so; axosweep cancel ends it"


@dataclass(slots=True)
class ModalRemoval:
    """`mirror` is on this machine; the originals are on the Volumes."""

    mirror: Store
    names: Names
    files: ModalFiles = field(init=False)
    _entries: Mapping[str, Any] = field(default_factory=dict)
    """A copy of the claims."""
    _live: dict[str, bool] = field(default_factory=dict)
    _served: Mapping[str, str] = field(default_factory=dict)
    """Run key -> the app that serves it, which would miss its files at its next start."""

    def __post_init__(self) -> None:
        self.files = ModalFiles(self.names)

    def look(self) -> None:
        """Ask Modal which calls and servers use what. Raises SweepError when it cannot be reached."""
        with explained():
            self._entries = dict(self._claims().items())
            served = deployments(self.names.runs_volume)
        self._served = {names[0]: one.app for one in served for names, _ in one.models}
        self._live.clear()

    def at_work(self, key: str) -> str:
        """What works on a run, its follow-up steps or a dataset, or is about to, as of the last look; empty if nothing
        does."""
        if app := self._served.get(key):
            return f"it is served on Modal; axosweep serve stop {app} ends it"
        with explained():
            return WORKING if any(self._works(name) for name in self._jobs(key)) else ""

    def remove(self, removal: Removal) -> Removal:
        """Returns what was removed, and what was not, since a call has started to work on it meanwhile."""
        done, kept = list[ToDelete](), list[KeptRun]()
        for one in removal.to_delete:
            with explained():
                if self._remove(one):
                    done.append(one)
                else:
                    kept.append(KeptRun(one.key, "a call has just started to work on it"))
        return Removal(tuple(done), tuple(kept))

    def _remove(self, one: ToDelete) -> bool:
        if one.kind in (Kind.INPUT, Kind.LEFTOVER, Kind.CHECKPOINTS):
            for path in one.paths:
                self.files.remove(path)
            return True
        kind = StepKind.TRAIN if one.kind is Kind.RUN else StepKind.PREPROCESS
        claims, name = self._claims(), job_name(kind, one.key)
        claims.put(f"cancelled/{name}", True)  # no call starts it from here on
        self.look()
        if self.at_work(one.key):
            claims.pop(f"cancelled/{name}", None)
            return False
        clear_mirror(self.mirror, one)  # first: the next look at Modal copies again what is still there
        self._remove_marks(one.key, kind)
        if kind is StepKind.TRAIN:
            self.files.remove(f"runs/{one.key}/result.json")
            self.files.remove(f"runs/{one.key}")
            self._leave_request(one)
        else:
            self.files.remove(f"prepared/{one.key}/manifest.json")
            for path in one.paths:
                self.files.remove(path)
        for entry in self._entries_of(one.key, self._entries):
            claims.pop(entry, None)
        return True

    def _remove_marks(self, key: str, kind: StepKind) -> None:
        self.files.remove(f"{DONE}/{mark_name(job_name(kind, key))}")
        beginnings = tuple(
            f"{DONE}/{mark_name(f'{after}/{key}/')}" for after in FOLLOW_UP_KINDS if kind is StepKind.TRAIN
        )
        for entry in listed(self.files.volume(DONE), DONE):
            if entry.path.startswith(beginnings):
                self.files.remove(entry.path)

    def _leave_request(self, one: ToDelete) -> None:
        """Leave in the run's folder its request, and the note that it was removed."""
        home = f"runs/{one.key}"
        with self.files.volume(home).batch_upload(force=True) as batch:
            request = self.mirror.runs / one.key / "run.json"
            if request.exists():
                batch.put_file(request, f"/{home}/run.json")
            batch.put_file(io.BytesIO(removal_note(one.bytes).encode()), f"/{home}/{REMOVED}")

    def _works(self, name: str) -> bool:
        waiting = [found for found in map(waiting_in, self._entries) if found is not None]
        if any(self._is_live(one.call) for one in waiting if one.name == name):
            return True
        call = last_claim(self._entries.get, name)[1]
        return call is not None and is_at_work(self._entries.get, name, call)

    def _is_live(self, call: str) -> bool:
        if call not in self._live:
            self._live[call] = is_live(call)
        return self._live[call]

    def _jobs(self, key: str) -> list[str]:
        """The names of the jobs of a run or a dataset, and of its follow-up steps that have a claim or wait."""
        kinds = (StepKind.TRAIN, StepKind.PREPROCESS)
        names = [job_name(kind, key) for kind in kinds]
        after = tuple(f"{kind}/{key}/" for kind in FOLLOW_UP_KINDS)
        names += [name for name in map(job_of, self._entries) if name.startswith(after)]
        return list(dict.fromkeys(names))

    def _entries_of(self, key: str, entries: Collection[str]) -> list[str]:
        jobs = self._jobs(key)
        of_jobs = [entry for entry in entries if waiting_in(entry) is None and job_of(entry) in jobs]
        return list({*of_jobs, *(f"cancelled/{job}" for job in jobs)})

    def _claims(self) -> modal.Dict:
        return modal.Dict.from_name(self.names.claims, create_if_missing=True)


def removal_for(mirror: Store, named: Collection[str] = ()) -> ModalRemoval:
    """A removal on the Volumes that the `named` sweeps and run keys were last submitted to; without names, on those of
    the newest submission, or of conf. Raises SweepError for names on different Volumes."""
    last, found = DEFAULT, dict[str, Names]()
    for path in sorted(mirror.sweeps.glob(f"*/{SUBMISSION}"), key=lambda path: path.stat().st_mtime):
        last, steps = read_submission(mirror, path.parent.name)
        found |= dict.fromkeys({path.parent.name, *(step.key for step in steps)} & set(named), last)
    places = list(dict.fromkeys(found.values())) or [last]
    if len(places) > 1:
        volumes = " and ".join(names.runs_volume for names in places)
        raise SweepError(f"Nothing was removed: these are on several Volumes ({volumes}). Name those of one Volume.")
    return ModalRemoval(mirror, places[0])
