"""A mirror of Modal's Volumes on this machine: the small files of a sweep's steps, in the store's own layout.

Whoever knows a sweep's id can make one, anywhere: what it shows is on the Volumes and in the calls' own state.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import modal
import modal.exception

from modal_app.claims import is_live
from modal_app.layout import SUBMISSION, Store
from modal_app.remote import DONE
from modal_app.state import REMOTE, Phase, observe
from modal_app.step import StepKind, write_atomically
from runner.errors import SweepError
from runner.ledger import Event, Ledger, Record

OF_STEP = ("run.json", "metrics.jsonl", "result.json", "wandb.json", "config.yml")
OF_ATTEMPT = ("started.json", "result.json", "train.json", "exit.json", "log.txt")


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
    fetch: str = ""
    """The job that fetches its base model first; empty when there is none."""

    @property
    def name(self) -> str:
        return f"{self.kind}/{self.key}"


@dataclass(slots=True)
class ModalMirror:
    """`store` is the mirror; the truth is on the Volumes."""

    store: Store
    names: Names
    _sizes: dict[str, int] = field(default_factory=dict)
    """Volume path -> size already mirrored."""

    def look(self, steps: Sequence[MirroredStep]) -> bool:
        """`refresh`, for whoever goes on looking: while Modal cannot be reached, nothing is known to have ended."""
        try:
            return self.refresh(steps)
        except (modal.exception.ConnectionError, modal.exception.ServiceError, modal.exception.InternalError):
            return False

    def refresh(self, steps: Sequence[MirroredStep]) -> bool:
        """Bring the steps up to date; True when none of them goes on. Raises what Modal's client raises."""
        claims = modal.Dict.from_name(self.names.claims, create_if_missing=True)
        datasets = [step for step in steps if step.kind is StepKind.PREPROCESS]
        live_datasets = {step.key for step in datasets if self._lives(claims, step.name, step.fetch)}
        going_on = False
        for step in steps:
            if self._has_ended(step):
                continue
            live = step.key in live_datasets or self._goes_on(step, claims, live_datasets)
            self._mirror(step)
            self._note(step, live=live)
            going_on |= live
        return not going_on

    def done(self) -> set[str]:
        """The marks of every finished step and fetched model, by one listing of the runs Volume."""
        return {PurePosixPath(entry.path).name for entry in listed(self._volume(self.names.runs_volume), DONE)}

    def note_blocked(self, steps: Sequence[MirroredStep], ledger: Ledger) -> None:
        """Record why steps will not start that wait for something that failed: no folder of theirs can tell."""
        claims = modal.Dict.from_name(self.names.claims, create_if_missing=True)
        for step in steps:
            if observe(self.store, step.kind, step.key).phase is not Phase.ABSENT:
                continue
            if (cause := claims.get(f"blocked/{step.name}")) is not None:
                record = Record(Event.FINISHED, step.kind, step.key, status=str(Phase.LOST), message=str(cause))
                ledger.append(record)

    def cancel(self, steps: Sequence[MirroredStep]) -> int:
        """End the calls that work on these steps, containers included; returns how many there were."""
        claims = modal.Dict.from_name(self.names.claims, create_if_missing=True)
        names = {name for step in steps for name in (step.name, step.fetch) if name}
        calls = {call for name in names for call in _calls(claims, name) if is_live(call)}
        for call in calls:
            modal.FunctionCall.from_id(call).cancel(terminate_containers=True)
        return len(calls)

    def _has_ended(self, step: MirroredStep) -> bool:
        return observe(self.store, step.kind, step.key).phase in (Phase.SUCCEEDED, Phase.FAILED)

    def _goes_on(self, step: MirroredStep, claims: modal.Dict, live_datasets: set[str]) -> bool:
        """Whether a call works on a step, or will once its dataset is there."""
        if self._lives(claims, step.name):
            return True
        return step.kind is StepKind.TRAIN and step.data_key in live_datasets

    def _lives(self, claims: modal.Dict, *names: str) -> bool:
        return any(is_live(call) for name in names if name for call in _calls(claims, name))

    def _mirror(self, step: MirroredStep) -> None:
        """Copy the small files of a step's folder that have grown."""
        there = self.store.folder(step.kind, step.key).path.relative_to(self.store.root).as_posix()
        preprocess = step.kind is StepKind.PREPROCESS
        volume = self._volume(self.names.cache_volume if preprocess else self.names.runs_volume)
        for entry in listed(volume, there):
            path = PurePosixPath(entry.path)
            if path.name in OF_STEP:
                self._copy(volume, path, entry.size)
            elif path.name.startswith("attempt-"):
                for inner in listed(volume, entry.path):
                    if PurePosixPath(inner.path).name in OF_ATTEMPT:
                        self._copy(volume, PurePosixPath(inner.path), inner.size)
        if preprocess:
            for entry in listed(volume, f"prepared/{step.key}"):
                if entry.path.endswith(".json"):
                    self._copy(volume, PurePosixPath(entry.path), entry.size)

    def _copy(self, volume: modal.Volume, path: PurePosixPath, size: int) -> None:
        if self._sizes.get(str(path)) == size:
            return
        target = self.store.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, read_text(volume, str(path)))
        self._sizes[str(path)] = size

    def _note(self, step: MirroredStep, *, live: bool) -> None:
        """What the mirror cannot tell from its files: whether the step still goes on over there."""
        folder = self.store.folder(step.kind, step.key).path
        if folder.exists():
            write_atomically(folder / REMOTE, json.dumps({"live": live, "at": time.time()}))

    def _volume(self, name: str) -> modal.Volume:
        return modal.Volume.from_name(name)


def _calls(claims: modal.Dict, name: str) -> set[str]:
    """The last call that was made for a job, and the one that has claimed it: they differ when sweeps overlap."""
    return {str(call) for key in (f"call/{name}", name) if (call := claims.get(key)) is not None}


def fetch_sweep(store: Store, sweep: str, runs_volume: str) -> tuple[Names, list[MirroredStep]]:
    """The plan of a submitted sweep into the mirror, from its id alone.

    Raises SweepError when the runs Volume has no such sweep.
    """
    volume = modal.Volume.from_name(runs_volume)
    files = [entry for entry in listed(volume, f"sweeps/{sweep}") if entry.path.endswith(".json")]
    if not files:
        known = ", ".join(PurePosixPath(entry.path).name for entry in listed(volume, "sweeps")) or "none"
        raise SweepError(f"The Volume {runs_volume} has no sweep {sweep}. It has: {known}.")
    for entry in files:
        target = store.root / entry.path
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, read_text(volume, entry.path))
    raw = json.loads((store.sweeps / sweep / SUBMISSION).read_text(encoding="utf-8"))
    steps = [MirroredStep(**one | {"kind": StepKind(one["kind"])}) for one in raw["steps"]]
    return Names(**raw["names"]), steps


def read_text(volume: modal.Volume, path: str) -> str:
    return b"".join(volume.read_file(path)).decode(errors="replace")


def listed(volume: modal.Volume, path: str) -> list[Any]:
    """The entries of a folder on a Volume; none where there is no folder, or no Volume yet."""
    try:
        return list(volume.listdir(path))
    except (modal.exception.NotFoundError, FileNotFoundError):
        return []
