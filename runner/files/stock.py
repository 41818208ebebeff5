"""What is in a store: runs, the datasets and inputs that they need, and the run that each was started from.

It is read from listings and small files alone, so it works for a store here and for Modal's Volumes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from modal_app.store.layout import ATTEMPT_PREFIX, BASE_MODEL_KEY, MANIFEST, REMOVED, STEPS, parts_of_key
from modal_app.store.pins import input_of
from modal_app.store.read_json import parse_json, parsed_as
from modal_app.store.step import StepKind
from runner.files.run_files import Entry, Files
from runner.store.ledger import SweepRun, plan_of
from runner.store.run_config import identity_of

AT_A_TIME = 8
"""Small files that are read at the same time."""
INPUT = re.compile(r"\binputs/([^\"'\s,\]})\\/]+)")
"""A stored input, as configs and steps name it."""
WORK = ".work"
STAYS = ("run.json", "lock", REMOVED)
"""The files of a removed run that stay: its request and the note."""


@dataclass(frozen=True, slots=True)
class StockedRun:
    key: str
    data_key: str
    sweeps: tuple[str, ...]
    """The sweeps that have it; none if they were removed."""
    files: tuple[Entry, ...]
    parent: str = ""
    """The run that it was started from."""
    rung: int = 0
    """The rung of a search at which it has stopped, and from which it may go on; 0 otherwise."""

    @property
    def home(self) -> str:
        return f"runs/{self.key}"

    @property
    def begun(self) -> bool:
        return any(entry.path.startswith(f"{self.home}/{ATTEMPT_PREFIX}") for entry in self.files)

    @property
    def finished(self) -> bool:
        return any(entry.path == f"{self.home}/result.json" for entry in self.files)

    @property
    def removed(self) -> bool:
        """Whether it was removed, and not started again."""
        return not self.begun and any(entry.path == f"{self.home}/{REMOVED}" for entry in self.files)

    @property
    def made(self) -> tuple[Entry, ...]:
        """All files, except those that stay when a run is removed."""
        return tuple(entry for entry in self.files if entry.path.removeprefix(f"{self.home}/") not in STAYS)


@dataclass(frozen=True, slots=True)
class Stock:
    runs: Mapping[str, StockedRun]
    prepared: Mapping[str, tuple[Entry, ...]]
    """By folder: a data key, or one with `.work` for the step that makes it."""
    inputs: Mapping[str, tuple[Entry, ...]]
    others: tuple[Entry, ...]
    """Everything else in the same folders, such as answers of base models."""
    unread: tuple[str, ...] = ()
    """Files that cannot be read, so that what their runs need is unknown."""

    @property
    def kept(self) -> list[StockedRun]:
        return [one for one in self.runs.values() if not one.removed]

    def children(self, key: str) -> list[str]:
        """The runs that were started from a run."""
        return [one.key for one in self.kept if one.parent == key]

    def is_ready(self, data_key: str) -> bool:
        return any(entry.path == f"prepared/{data_key}/{MANIFEST}" for entry in self.prepared.get(data_key, ()))


@dataclass(frozen=True, slots=True)
class NeededInputs:
    names: frozenset[str]
    unread: tuple[str, ...] = ()
    """Files with submitted steps that cannot be read, so that these steps may need any input."""


def take_stock(files: Files) -> Stock:
    """The stock of a store. On Modal, this takes some listings, and reads a small file per sweep and run."""
    below = {folder: _by_folder(folder, files.below(folder)) for folder in ("runs", "prepared", "inputs")}
    plans, unread = _plans(files)
    sweeps_of: dict[str, list[str]] = {}
    data_keys: dict[str, str] = {}
    for sweep, runs in plans.items():
        for run in runs:
            sweeps_of.setdefault(run.key, []).append(sweep)
            data_keys[run.key] = run.data_key
    folders = {
        key: entries for key, entries in below["runs"].items() if key != BASE_MODEL_KEY and not key.startswith(".")
    }
    raw, unread_identities = _objects(files, [f"runs/{key}/run.json" for key in folders])
    identities = {path: parsed_as(files.place(path), one, identity_of) for path, one in raw.items()}
    unread_identities += [path for path, one in identities.items() if one is None]
    rungs = _stopped_at_rungs(entry.path for entry in files.below("sweeps"))
    found = {}
    for key in {**folders, **data_keys}:
        identity = identities.get(f"runs/{key}/run.json") or {}
        data_key = data_keys.get(key) or str(identity.get("data_key", ""))
        parent = identity.get("from") or {}
        sweeps = tuple(sweeps_of.get(key, ()))
        origin = str(parent.get("run", ""))
        found[key] = StockedRun(key, data_key, sweeps, folders.get(key, ()), origin, rungs.get(key, 0))
    others = tuple(
        entry for folder in below.values() for name, one in folder.items() if name[:1] == "." for entry in one
    )
    return Stock(
        found,
        {name: entries for name, entries in below["prepared"].items() if name[:1] != "."},
        _with_notes({name: entries for name, entries in below["inputs"].items() if name[:1] != "."}),
        (*others, *below["runs"].get(BASE_MODEL_KEY, ())),
        (*unread, *unread_identities),
    )


def with_read_results(files: Files, stock: Stock, keys: Collection[str]) -> Stock:
    """The stock, in which those of these runs have not finished whose result.json cannot be read."""
    paths = [f"runs/{key}/result.json" for key in keys if stock.runs[key].finished]
    results, _ = _objects(files, paths)
    return replace(
        stock,
        runs={
            key: replace(one, files=tuple(entry for entry in one.files if entry.path != path))
            if (path := f"{one.home}/result.json") in paths and "status" not in results.get(path, {})
            else one
            for key, one in stock.runs.items()
        },
    )


def inputs_needed(files: Files, stock: Stock) -> NeededInputs:
    """The stored inputs that are read by runs and their datasets, answers of base models, and follow-up steps, started
    or not.

    Every name that a config or a step mentions counts, whatever it is used for.
    """
    needed = {one.data_key for one in stock.kept}
    entries = [entry for one in stock.kept for entry in one.files]
    entries += [entry for name, group in stock.prepared.items() if name.removesuffix(WORK) in needed for entry in group]
    entries += stock.others
    texts = _texts(files, [entry.path for entry in entries if _names_inputs(entry.path)])
    waiting, unread = _waiting(files, stock)
    named = {name for text in [*texts.values(), *waiting] for name in INPUT.findall(text)}
    raw = {
        path: parse_json(files.place(path), text.encode) for path, text in texts.items() if path.endswith("/run.json")
    }
    identities = [parsed_as(files.place(path), one, identity_of) or {} for path, one in raw.items()]
    wanted = {str(one.get("identity"))[:16] for identity in identities for one in identity.get("inputs", ())}
    return NeededInputs(frozenset(name for name in stock.inputs if name in named or name[:16] in wanted), tuple(unread))


def _waiting(files: Files, stock: Stock) -> tuple[list[str], list[str]]:
    """The submitted steps that are not done, as JSON, and the files of steps that cannot be read.

    A launcher stores what steps read before a worker records it in an attempt. Steps of a run that was removed later do
    not count.
    """
    written = {entry.path: entry.mtime for entry in files.below("sweeps") if PurePosixPath(entry.path).name == STEPS}
    made = {entry.path: entry.mtime for entry in stock.others}
    made |= {entry.path: entry.mtime for one in stock.runs.values() for entry in one.files}
    raw, unread = _objects(files, list(written))
    waiting = []
    for path, steps in raw.items():
        if (submitted := parsed_as(files.place(path), steps, _submitted)) is None:
            unread.append(path)
        for text, kind, run, done in submitted or ():
            removed = made.get(f"runs/{run}/{REMOVED}", 0.0)
            if kind != StepKind.PREPROCESS and done not in made and removed <= written[path]:
                waiting.append(text)
    return waiting, unread


def _submitted(raw: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Each step in a steps.json: as JSON, its kind, its run and its "done" file."""
    steps = [(text, json.loads(text)) for text in raw.get("steps", {}).values()]
    return [(text, step["kind"], step.get("run") or step["key"], _done(step)) for text, step in steps]


def _done(step: Mapping[str, Any]) -> str:
    """The "done" file of a train step or a follow-up step."""
    run, own = parts_of_key(step["key"])
    return f"runs/{run}/{step['kind']}/{own}/result.json" if own else f"runs/{run}/result.json"


def _names_inputs(path: str) -> bool:
    """Whether a file names inputs: the request in a run's own folder, or the step of an attempt."""
    name = PurePosixPath(path).name
    return name == "step.json" or (name in ("run.json", "config.yml") and len(PurePosixPath(path).parts) == 3)


def _plans(files: Files) -> tuple[dict[str, Sequence[SweepRun]], list[str]]:
    """The runs of each sweep, and the plans that cannot be read."""
    paths = [entry.path for entry in files.below("sweeps") if PurePosixPath(entry.path).name == "plan.json"]
    raw, unread = _objects(files, paths)
    plans = {path: parsed_as(files.place(path), one, plan_of) for path, one in raw.items()}
    unread += [path for path, plan in plans.items() if plan is None]
    return {path.split("/")[1]: plan.runs for path, plan in plans.items() if plan is not None}, unread


def _stopped_at_rungs(paths: Iterable[str]) -> dict[str, int]:
    """Run -> the last rung at which it has stopped, if no entry says that it goes on from there. Only the names of the
    searches' entries are read."""
    said: dict[str, dict[str, int]] = {"stop": {}, "go": {}}
    for path in paths:
        match path.split("/"):
            case ["sweeps", *_, "rungs", _, ("stop" | "go") as what, rung, file] if rung.isdecimal():
                run = file.removesuffix(".json")
                said[what][run] = max(said[what].get(run, 0), int(rung))
    return {run: rung for run, rung in said["stop"].items() if said["go"].get(run, 0) < rung}


def _by_folder(top: str, entries: Iterable[Entry]) -> dict[str, tuple[Entry, ...]]:
    folders: dict[str, list[Entry]] = {}
    for entry in entries:
        folders.setdefault(entry.path.removeprefix(f"{top}/").split("/")[0], []).append(entry)
    return {name: tuple(group) for name, group in folders.items()}


def _with_notes(inputs: Mapping[str, tuple[Entry, ...]]) -> dict[str, tuple[Entry, ...]]:
    """A note belongs to its input, and of one that is a link it is all that is listed."""
    found: dict[str, tuple[Entry, ...]] = {}
    for name, entries in inputs.items():
        found[input_of(name)] = found.get(input_of(name), ()) + entries
    return found


def _objects(files: Files, paths: Sequence[str]) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The objects in those files that exist, and the paths of those that cannot be read."""
    found = {path: parse_json(files.place(path), text.encode) for path, text in _texts(files, paths).items()}
    return {path: one for path, one in found.items() if one}, [path for path, one in found.items() if not one]


def _texts(files: Files, paths: Sequence[str]) -> dict[str, str]:
    """The texts of those files that exist."""

    def read(path: str) -> str | None:
        try:
            return b"".join(files.read(path, 0)).decode(errors="replace")
        except FileNotFoundError:
            return None

    with ThreadPoolExecutor(AT_A_TIME) as pool:
        texts = dict(zip(paths, pool.map(read, paths), strict=True))
    return {path: text for path, text in texts.items() if text is not None}
