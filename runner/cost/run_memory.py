"""A store -> what its ended runs have shown of their GPUs' memory. Only reads, but for a cache of what it has read."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from modal_app.store.facts import DataManifest, TrainFacts
from modal_app.store.layout import StepFolder, Store
from modal_app.store.out_of_memory import Memory
from modal_app.store.read_json import read_json
from modal_app.store.state import read_outcome
from modal_app.store.step import Outcome, OutcomeStatus, StepKind, write_atomically
from runner.cost.model_names import identity_of_model, model_name
from runner.cost.spent import card_of, containers
from runner.memory.estimate import CONTEXT
from runner.memory.measured import KnownMemory, RunMemory
from runner.memory.sharding import with_files
from runner.memory.weights import GIB

RESERVED = "memory/device_reserved (GiB)"
ALLOCATED = "memory/max_allocated (GiB)"
"""What Axolotl logs of rank 0's GPU: the most that torch has taken, and the most of it that was in use."""
CACHE = "gpu_memory.json"
FORMAT = 1
"""Of the cache; one of another format is not read."""


def known_memory(stores: Sequence[Store]) -> dict[str, KnownMemory]:
    """What all runs of these stores have shown, by the name of their model."""
    found: dict[str, list[tuple[float, RunMemory]]] = {}
    for store in stores:
        for ended_at, model, one in _of_store(store):
            found.setdefault(model, []).append((ended_at, one))
    newest = {model: sorted(ones, key=lambda one: one[0], reverse=True) for model, ones in found.items()}
    return {model: KnownMemory.of(run for _, run in ones) for model, ones in newest.items()}


def memory_of_run(store: Store, key: str) -> RunMemory | None:
    """What an ended run has shown; None for one on CPUs, and for one that has not ended."""
    found = _read(store, key)
    return found[1] if found else None


def _of_store(store: Store) -> Iterator[tuple[float, str, RunMemory]]:
    path = store.cache / CACHE
    cached = read_json(path, lenient=True)
    before = cached.get("runs", {}) if cached.get("format") == FORMAT else {}
    now: dict[str, Any] = {}
    for key in _keys(store):
        folder = store.folder(StepKind.TRAIN, key)
        if (ended_at := _ended_at(folder)) is None:
            continue
        now[key] = before[key] if before.get(key, {}).get("ended_at") == ended_at else _entry(store, key, ended_at)
        if now[key]["memory"] is not None:
            yield ended_at, now[key]["model"], RunMemory(**now[key]["memory"])
    if now != before:
        with contextlib.suppress(OSError):  # it is read again next time
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, json.dumps({"format": FORMAT, "runs": now}))


def _entry(store: Store, key: str, ended_at: float) -> dict[str, Any]:
    """Of the cache. Null for a run that has shown nothing, such as one on CPUs."""
    model, memory = _read(store, key) or ("", None)
    return {"ended_at": ended_at, "model": model, "memory": None if memory is None else asdict(memory)}


def _keys(store: Store) -> list[str]:
    try:
        return sorted(entry.name for entry in os.scandir(store.runs) if entry.is_dir())
    except OSError:
        return []


def _ended_at(folder: StepFolder) -> float | None:
    """When the file that says how a run ended was written; None while there is none."""
    if (path := _result(folder)) is None:
        return None
    try:
        return path.stat().st_mtime
    except OSError:
        return None


def _result(folder: StepFolder) -> Path | None:
    if folder.done.exists():
        return folder.done
    attempts = folder.attempts()
    return attempts[-1].result if attempts else None


def _read(store: Store, key: str) -> tuple[str, RunMemory] | None:
    """The name of a run's model, and what it has shown."""
    folder = store.folder(StepKind.TRAIN, key)
    identity = read_json(folder.identity, lenient=True)
    axolotl, gpu = identity.get("axolotl"), identity.get("gpu")
    if not isinstance(axolotl, dict) or not isinstance(gpu, dict) or gpu.get("type", "cpu") == "cpu":
        return None
    path = _result(folder)
    if path is None or (outcome := read_outcome(path)) is None:
        return None
    rented = containers(folder)
    logged = _logged(folder.metrics)
    shown = [card.peak_mib * 2**20 for one in rented for card in one.cards if card.peak_mib]
    shown += [int(logged[RESERVED] * GIB + CONTEXT)] if RESERVED in logged else []
    config = {key: value for key, value in with_files(axolotl).items() if key != "datasets"}
    model = model_name(str(axolotl.get("base_model") or ""), identity_of_model(identity.get("inputs") or ()))
    return model, RunMemory(
        run=key,
        config={**config, "test_datasets": bool(config.get("test_datasets"))},
        gpu=card_of(rented) or str(gpu.get("type")),
        count=int(gpu.get("count") or 1),
        longest_row=DataManifest.read(store.manifest(str(identity.get("data_key")))).longest_row,
        succeeded=outcome.status is OutcomeStatus.SUCCEEDED,
        out_of_memory=_exceeded_gpu(outcome),
        peak=max(shown, default=None),
        used=int(logged[ALLOCATED] * GIB + CONTEXT) if ALLOCATED in logged else None,
    )


def _exceeded_gpu(outcome: Outcome) -> bool:
    """A process that the kernel has killed says nothing about a GPU's memory."""
    failed = outcome.status is OutcomeStatus.FAILED
    return failed and TrainFacts.of(outcome.facts).out_of_memory_on is Memory.GPU


def _logged(path: Path) -> Mapping[str, float]:
    """The largest values above zero that were logged of the GPU."""
    found: dict[str, float] = {}
    try:
        lines = [line for line in path.read_bytes().split(b"\n") if b'"memory/' in line]
    except OSError:
        return found
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:  # cut by a kill
            continue
        for name in (RESERVED, ALLOCATED):
            value = row.get(name) if isinstance(row, dict) else None
            if isinstance(value, int | float) and value > 0:
                found[name] = max(found.get(name, 0.0), float(value))
    return found
