"""A mirror of Modal's Volumes on this machine: the small files of a sweep's steps, in the store's own layout.

Whoever knows a sweep's id can make one, anywhere: what it shows is on the Volumes and in the calls' own state.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import modal
import modal.exception

from modal_app.claims import is_live, last_claim
from modal_app.layout import ATTEMPT_PREFIX, SEEN, SUBMISSION, StepFolder, Store
from modal_app.remote import DONE
from modal_app.state import REMOTE, Phase, observe
from modal_app.step import OutcomeStatus, StepKind, write_atomically
from runner.costs import containers, fetch_folder
from runner.errors import SweepError
from runner.ledger import Event, Ledger, Record
from runner.standing import unbegun

OF_STEP = ("run.json", "metrics.jsonl", "result.json", "wandb.json", "config.yml")
OF_ATTEMPT = ("container.json", "started.json", "result.json", "train.json", "exit.json", "log.txt")
POLL_S = 2.0
AT_A_TIME = 8
"""Questions to Modal at the same time, while it is looked at."""

Entries = Mapping[str, Any]
"""A copy of the claims: `modal_app.claims` tells what they mean."""


@dataclass(frozen=True, slots=True)
class Names:
    """Of a deployment, what reading needs."""

    cache_volume: str
    runs_volume: str
    claims: str


@dataclass(frozen=True, slots=True)
class MirroredStep:
    kind: StepKind
    key: str
    data_key: str
    fetches: tuple[str, ...] = ()
    """The jobs that first fetch what a dataset and its runs read from the hub."""

    @property
    def name(self) -> str:
        return f"{self.kind}/{self.key}"


@dataclass(slots=True)
class ModalMirror:
    """`store` is the mirror; the truth is on the Volumes."""

    store: Store
    names: Names
    _copied: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Volume path -> size and time of what is mirrored already."""
    _over: set[str] = field(default_factory=set)
    """Calls that have ended."""
    _settled: dict[str, str | None] = field(default_factory=dict)
    """Step -> its last call, of those that were copied when nothing worked on them: until they have another one."""
    _handles: dict[str, Any] = field(default_factory=dict)
    """Volumes and the Dict, each looked up once."""
    _writing: threading.Lock = field(default_factory=threading.Lock)
    """Two datasets may have one model."""
    _paid: set[str] = field(default_factory=set)
    """Steps that are done, and whose containers have said their last word."""

    def look(self, steps: Sequence[MirroredStep]) -> bool:
        """`refresh`, for whoever goes on looking: while Modal cannot be reached, nothing is known to have ended."""
        try:
            return self.refresh(steps)
        except (modal.exception.ConnectionError, modal.exception.ServiceError, modal.exception.InternalError):
            return False

    def refresh(self, steps: Sequence[MirroredStep]) -> bool:
        """Bring the steps up to date; True when none of them goes on. Raises what Modal's client raises."""
        before = {step.key: (step.name, *step.fetches) for step in steps if step.kind is StepKind.PREPROCESS}
        entries, live = self._live({name for step in steps for name in (step.name, *step.fetches)})
        goes_on = {
            step.name: step.name in live
            or (f"cancelled/{step.name}" not in entries and any(name in live for name in before.get(step.data_key, ())))
            for step in steps
        }

        def update(step: MirroredStep) -> None:
            call = last_claim(entries.get, step.name)[1]
            self._update(step, call, works=step.name in live, goes_on=goes_on[step.name])

        with ThreadPoolExecutor(AT_A_TIME) as pool:
            list(pool.map(update, steps))
        return not any(goes_on.values())

    def done(self) -> set[str]:
        """The marks of every finished step and fetched model, by one listing of the runs Volume."""
        return {PurePosixPath(entry.path).name for entry in listed(self._volume(self.names.runs_volume), DONE)}

    def note_unbegun(self, steps: Sequence[MirroredStep], ledger: Ledger) -> None:
        """Record why steps have not begun, when nothing goes on any more: no folder of theirs can tell."""
        entries = dict(self._claims().items())
        noted = unbegun(ledger.records())
        fetches = {step.key: step.fetches for step in steps}
        for step in steps:
            if observe(self.store, step.kind, step.key).phase is not Phase.ABSENT:
                continue
            before = (f"{StepKind.PREPROCESS}/{step.data_key}", *fetches.get(step.data_key, ()))
            why = _why_not_begun(entries, step.name, before)
            if step.key not in noted or noted[step.key].message != why:
                ledger.append(Record(Event.FINISHED, step.kind, step.key, status=str(Phase.LOST), message=why))

    def cancel(self, steps: Sequence[MirroredStep], sweep: str | None) -> set[str]:
        """End the calls that work on these runs, containers included, and let those not be started that wait.

        With the sweep they are all of, its datasets and models too, unless another sweep is at work on them or waits
        for them. Returns the names of the jobs that were ended.
        """
        claims = self._claims()
        mine = {step.name for step in steps if step.kind is StepKind.TRAIN}
        claims.update({f"cancelled/{name}": time.time() for name in mine})
        entries = dict(claims.items())
        calls = {name: call for name in mine if (call := last_claim(entries.get, name)[1])}
        if sweep is not None:
            shared = {name for step in steps for name in (step.name, *step.fetches)} - mine
            calls |= {name: call for name in shared if (call := _only_for(entries, name, sweep, mine | shared))}
        live = {name: call for name, call in calls.items() if is_live(call)}
        for call in live.values():
            modal.FunctionCall.from_id(call).cancel(terminate_containers=True)
        return set(live)

    def _live(self, names: Collection[str]) -> tuple[Entries, set[str]]:
        """The claims, and the jobs that a call works on or will.

        A call starts others before it ends. So that nothing goes on is known only when a look after the last call's
        end finds no other call than before.
        """
        calls: dict[str, str] | None = None
        while True:
            entries, before = dict(self._claims().items()), calls
            calls = {name: call for name in names if (call := last_claim(entries.get, name)[1])}
            with ThreadPoolExecutor(AT_A_TIME) as pool:
                alive = pool.map(self._is_live, calls.values())
                live = {name for name, goes_on in zip(calls, alive, strict=True) if goes_on}
            if live or calls == before:
                return entries, live

    def _is_live(self, call: str) -> bool:
        if call not in self._over and not is_live(call):
            self._over.add(call)
        return call not in self._over

    def _update(self, step: MirroredStep, call: str | None, *, works: bool, goes_on: bool) -> None:
        """`works`: its last call does; `goes_on`: or what comes before it."""
        if self._is_done(step):
            self._await_last_word(step, live=goes_on)
            return
        if works or self._settled.get(step.name, "") != call:
            self._mirror(step)
        if not works:
            self._settled[step.name] = call
        self._note(step, live=goes_on)

    def _is_done(self, step: MirroredStep) -> bool:
        return observe(self.store, step.kind, step.key).phase is Phase.SUCCEEDED

    def _mirror(self, step: MirroredStep) -> None:
        """Copy the small files of a step's folder that have grown.

        What says that it is done comes last, and is looked for first: once it is here, the folder is whole.
        """
        folder, volume = self.store.folder(step.kind, step.key), self._volume_of(step)
        apart = self._there(folder.done.parent) if step.kind is StepKind.PREPROCESS else ""
        entries = [*(listed(volume, apart) if apart else ()), *listed(volume, self._there(folder.path))]
        files = [entry for entry in entries if _is_mirrored(entry.path, apart)]
        last = [entry for entry in files if entry.path == self._there(folder.done)]
        for entry in entries:
            if PurePosixPath(entry.path).name.startswith(ATTEMPT_PREFIX):
                files += [one for one in listed(volume, entry.path) if PurePosixPath(one.path).name in OF_ATTEMPT]
        for entry in files:
            if entry not in last:
                self._copy(volume, entry)
        self._mirror_containers(volume, folder)
        for name in step.fetches:
            self._mirror_containers(self._volume(self.names.runs_volume), fetch_folder(self.store, name))
        for entry in last:
            self._copy(volume, entry)

    def _mirror_containers(self, volume: modal.Volume, folder: StepFolder) -> None:
        """What they have spent. The record of one at work may change within a second, and keep its size."""
        at_work = {f"{record.task}.json" for record in containers(folder) if not record.ended}
        for entry in listed(volume, self._there(folder.containers)):
            if (name := PurePosixPath(entry.path).name) in at_work:
                self._copied.pop(entry.path, None)
            if name.endswith(".json"):
                self._copy(volume, entry)

    def _await_last_word(self, step: MirroredStep, *, live: bool) -> None:
        """The container of a step that is done outlives it by a moment, which is paid. One that was killed says nothing
        more, so none is waited for once its call has ended."""
        if step.name in self._paid:
            return
        folder = self.store.folder(step.kind, step.key)
        if not _have_ended(folder):
            self._mirror_containers(self._volume_of(step), folder)
        if not live or _have_ended(folder):
            self._paid.add(step.name)

    def _copy(self, volume: modal.Volume, entry: Any) -> None:
        """A file, unless it is here as it is there."""
        if self._copied.get(entry.path) == (entry.size, entry.mtime):
            return
        text = read_text(volume, entry.path)
        with self._writing:
            target = self.store.root / entry.path
            target.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(target, text)
            self._copied[entry.path] = (entry.size, entry.mtime)

    def _there(self, path: Path) -> str:
        return path.relative_to(self.store.root).as_posix()

    def _volume_of(self, step: MirroredStep) -> modal.Volume:
        preprocess = step.kind is StepKind.PREPROCESS
        return self._volume(self.names.cache_volume if preprocess else self.names.runs_volume)

    def _note(self, step: MirroredStep, *, live: bool) -> None:
        """What the mirror cannot tell from its files: whether the step still goes on over there."""
        folder = self.store.folder(step.kind, step.key).path
        if folder.exists():
            write_atomically(folder / REMOTE, json.dumps({"live": live, "at": time.time()}))

    def _volume(self, name: str) -> modal.Volume:
        handle: modal.Volume = self._handles.setdefault(f"volume {name}", modal.Volume.from_name(name))
        return handle

    def _claims(self) -> modal.Dict:
        fresh = modal.Dict.from_name(self.names.claims, create_if_missing=True)
        handle: modal.Dict = self._handles.setdefault("claims", fresh)
        return handle


def follow(mirror: ModalMirror, steps: Sequence[MirroredStep], ledger: Ledger, watch: Callable[[], None]) -> None:
    """Look until everything has ended, calling `watch` after each look."""
    while not look_once(mirror, steps, ledger):
        watch()
        time.sleep(POLL_S)
    watch()


def look_once(mirror: ModalMirror, steps: Sequence[MirroredStep], ledger: Ledger) -> bool:
    """Bring a sweep's mirror up to date, and note how old it is from now on; True when everything has ended."""
    over = mirror.look(steps)
    if over:
        mirror.note_unbegun(steps, ledger)
    write_atomically(ledger.folder / SEEN, json.dumps({"at": time.time(), "over": over}))
    return over


def fetch_sweep(store: Store, sweep: str, runs_volume: str) -> tuple[Names, list[MirroredStep]]:
    """The plan of a submitted sweep into the mirror, from its id alone.

    Raises SweepError when the runs Volume has no such sweep.
    """
    volume = modal.Volume.from_name(runs_volume)
    here = store.sweeps / sweep
    wanted = ("plan.json", SUBMISSION)
    files = [entry for entry in listed(volume, f"sweeps/{sweep}") if PurePosixPath(entry.path).name in wanted]
    if not files:
        known = ", ".join(PurePosixPath(entry.path).name for entry in listed(volume, "sweeps")) or "none"
        raise SweepError(f"The Volume {runs_volume} has no sweep {sweep}. It has: {known}.")
    here.mkdir(parents=True, exist_ok=True)
    for entry in files:
        write_atomically(here / PurePosixPath(entry.path).name, read_text(volume, entry.path))
    return submission(store, sweep)


def submission(store: Store, sweep: str) -> tuple[Names, list[MirroredStep]]:
    """What a sweep of the mirror has submitted, and under which names. Raises FileNotFoundError when it has not."""
    raw = json.loads((store.sweeps / sweep / SUBMISSION).read_text(encoding="utf-8"))
    steps = [
        MirroredStep(**one | {"kind": StepKind(one["kind"]), "fetches": tuple(one["fetches"])}) for one in raw["steps"]
    ]
    return Names(**raw["names"]), steps


def read_text(volume: modal.Volume, path: str) -> str:
    return b"".join(volume.read_file(path)).decode(errors="replace")


def listed(volume: modal.Volume, path: str) -> list[Any]:
    """The entries of a folder on a Volume; none where there is no folder, or no Volume yet."""
    try:
        return list(volume.listdir(path))
    except (modal.exception.NotFoundError, FileNotFoundError):
        return []


def _is_mirrored(path: str, apart: str) -> bool:
    """`apart`: the folder of a prepared dataset, whose small files are JSON."""
    there = PurePosixPath(path)
    return there.suffix == ".json" if str(there.parent) == apart else there.name in OF_STEP


def _have_ended(folder: StepFolder) -> bool:
    """Whether the container that began last on a step has said its last word."""
    records = containers(folder)
    return bool(records) and max(records, key=lambda record: record.began_at).ended


def _why_not_begun(entries: Entries, name: str, before: Sequence[str]) -> str:
    if f"cancelled/{name}" in entries:
        return "cancelled before it began"
    for one in before:
        call, ended = last_claim(entries.get, one)[1], entries.get(f"ended/{one}")
        if ended and ended["by"] == call and ended["status"] != OutcomeStatus.SUCCEEDED:
            return f"{one}: {ended['message']}"
    return "nothing works on it; the same line again starts it"


def _only_for(entries: Entries, name: str, sweep: str, names: Collection[str]) -> str | None:
    """The call that does a job for this sweep, if nobody else waits for it."""
    call = last_claim(entries.get, name)[1]
    if call is None or not any(claim == {"call": call, "sweep": sweep} for claim in entries.values()):
        return None
    left = {key.removeprefix(f"waiting/{call}/") for key in entries if key.startswith(f"waiting/{call}/")}
    return call if left <= set(names) else None
