"""A store -> what its ended runs have shown of their GPUs' memory. Only reads, but for a cache of what it has read."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from modal_app.cloud.meter import ContainerRecord
from modal_app.store.facts import DataManifest, TrainFacts
from modal_app.store.layout import Attempt, StepFolder, Store
from modal_app.store.out_of_memory import Memory
from modal_app.store.read_json import read_json
from modal_app.store.state import read_outcome
from modal_app.store.step import FailureReason, Outcome, OutcomeStatus, StepKind, write_atomically
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
FORMAT = 2
"""Of the cache; one of another format is not read."""


def known_memory(stores: Sequence[Store]) -> dict[str, KnownMemory]:
    """What all runs of these stores have shown, by the name of their model."""
    found: dict[str, list[tuple[float, RunMemory]]] = {}
    for store in stores:
        for ended_at, model, one in _of_store(store):
            found.setdefault(model, []).append((ended_at, one))
    newest = {model: sorted(ones, key=lambda one: one[0], reverse=True) for model, ones in found.items()}
    return {model: KnownMemory.of(run for _, run in ones) for model, ones in newest.items()}


def memory_of_run(store: Store, key: str) -> tuple[RunMemory, ...]:
    """What an ended run has shown, with each of its attempts that was out of memory; nothing for one on CPUs."""
    found = _read(store, key)
    return found[1] if found else ()


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
        for one in now[key]["memory"]:
            yield ended_at, now[key]["model"], RunMemory(**one)
    if now != before:
        with contextlib.suppress(OSError):  # it is read again next time
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, json.dumps({"format": FORMAT, "runs": now}))


def _entry(store: Store, key: str, ended_at: float) -> dict[str, Any]:
    """The cache's entry for a run. Empty for a run that has shown nothing, such as one on CPUs."""
    model, memory = _read(store, key) or ("", ())
    return {"ended_at": ended_at, "model": model, "memory": [asdict(one) for one in memory]}


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


def _read(store: Store, key: str) -> tuple[str, tuple[RunMemory, ...]] | None:
    """The name of a run's model, and what it has shown."""
    folder = store.folder(StepKind.TRAIN, key)
    identity = read_json(folder.identity, lenient=True)
    axolotl, gpu = identity.get("axolotl"), identity.get("gpu")
    if not isinstance(axolotl, dict) or not isinstance(gpu, dict) or gpu.get("type", "cpu") == "cpu":
        return None
    path = _result(folder)
    if path is None or (last := read_outcome(path)) is None:
        return None
    rented = containers(folder)
    config = {name: value for name, value in with_files(axolotl).items() if name != "datasets"}
    requested = RunMemory(
        run=key,
        config={**config, "test_datasets": bool(config.get("test_datasets"))},
        gpu=card_of(rented) or str(gpu.get("type")),
        count=int(gpu.get("count") or 1),
        longest_row=DataManifest.read(store.manifest(str(identity.get("data_key")))).longest_row,
        succeeded=False,
        out_of_memory=False,
    )
    failed = [one for one in map(_ended, folder.attempts()) if one is not None and _exceeded_gpu(one)]
    found = [replace(_as_tried(requested, one), out_of_memory=True) for one in failed]
    if not _exceeded_gpu(last):
        after = max((one.attempt for one in failed), default=0)
        found.append(_measured(_as_tried(requested, last), last, rented, folder.metrics, after))
    model = model_name(str(axolotl.get("base_model") or ""), identity_of_model(identity.get("inputs") or ()))
    return model, tuple(found)


def _ended(attempt: Attempt) -> Outcome | None:
    return read_outcome(attempt.result) if attempt.result.exists() else None


def _as_tried(requested: RunMemory, outcome: Outcome) -> RunMemory:
    """The config with the batch of an attempt, which on_oom=halve may have changed."""
    return replace(requested, config={**requested.config, **TrainFacts.of(outcome.facts).smaller_batch})


def _measured(
    run: RunMemory, outcome: Outcome, rented: Sequence[ContainerRecord], metrics: Path, after: int
) -> RunMemory:
    """`after`: the last attempt that was out of memory, whose figures are those of another batch."""
    logged = _logged(metrics, after)
    shown = [card.peak_mib * 2**20 for one in rented if min(one.attempts, default=after) > after or not after
             for card in one.cards if card.peak_mib]  # fmt: skip
    shown += [int(logged[RESERVED] * GIB + CONTEXT)] if RESERVED in logged else []
    return replace(
        run,
        succeeded=outcome.status is OutcomeStatus.SUCCEEDED,
        peak=max(shown, default=None),
        used=int(logged[ALLOCATED] * GIB + CONTEXT) if ALLOCATED in logged else None,
    )


def _exceeded_gpu(outcome: Outcome) -> bool:
    """A process that the kernel has killed says nothing about a GPU's memory."""
    return outcome.reason is FailureReason.OOM and TrainFacts.of(outcome.facts).out_of_memory_on is Memory.GPU


def _logged(path: Path, after: int) -> Mapping[str, float]:
    """The largest values above zero that were logged of the GPU after this attempt."""
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
        if not isinstance(row, dict) or (after and row.get("attempt", 0) <= after):
            continue
        for name in (RESERVED, ALLOCATED):
            value = row.get(name)
            if isinstance(value, int | float) and value > 0:
                found[name] = max(found.get(name, 0.0), float(value))
    return found
