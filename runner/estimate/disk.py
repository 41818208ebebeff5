"""What the runs of a plan need of a container's own disk on Modal: they write there, and it is copied to the Volume."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from modal_app.cloud.meter import Reservation
from modal_app.cloud.settings import DISK_GIB, MOST_DISK_GIB, reserved_by
from modal_app.store.step import StepKind
from runner.config.gpus import GPUS
from runner.console.numbers import counted
from runner.cost.length import saves_of
from runner.memory.disk import SavedBytes, saved_bytes
from runner.memory.sharding import with_files
from runner.preflight.findings import Finding, gate
from runner.preflight.memory import facts_for
from runner.preflight.rules.run_facts import RunFacts
from runner.types import Experiment, Plan

GIB = 2**30
MARGIN = 1.25
"""What is requested is the need times this, as far as Modal has it: a full disk ends a run. The same as for memory."""
ALSO_GIB = 20
"""Temporary rows, caches, compiled kernels."""
SOME_GPU = GPUS["h100"]
"""For runs on a CPU: what is saved hardly depends on the device."""
MOST_STORED = 4
"""Axolotl's save_total_limit, if a config has none."""
AT_THE_SAME_TIME = 2
"""Checkpoints beyond those that a run stores: one that is written before the oldest is removed, and one that has been
removed while it is copied."""

MANY_STEPS = 10**9
"""Of a run of unknown length."""


@dataclass(frozen=True, slots=True)
class DiskNeed:
    """What one container needs, in bytes."""

    run: str
    """The key of the run that needs the most."""
    checkpoints: int
    """How many there are at a time."""
    checkpoint: int
    """Of one."""
    model: int
    """What is left at the end: weights, or a merged model."""

    @property
    def gib(self) -> float:
        return (self.checkpoints * self.checkpoint + self.model) / GIB + ALSO_GIB


@dataclass(frozen=True, slots=True)
class PrintedDisk:
    """The disk of a container on Modal, in the output of `plan --json`."""

    need: DiskNeed | None
    """Of the run that needs the most; null if no run's is known."""
    unknown: int
    """How many runs have no estimate."""
    gib: int
    """What each container gets."""


def disk_of(plan: Plan, requested_gib: int | None) -> PrintedDisk:
    """For what is not done yet. `requested_gib`: executor.modal.disk_gib."""
    needs = _needs(plan)
    most = max((need for need in needs.values() if need), key=lambda need: need.gib, default=None)
    gib = requested_gib or needed_gib([most.gib] if most else [])
    return PrintedDisk(most, list(needs.values()).count(None), gib)


def disk_findings(plan: Plan, requested_gib: int | None) -> dict[str, Finding]:
    """Run key -> why the files of the run do not fit its container's disk."""
    gib, runs = disk_of(plan, requested_gib).gib, {one.run.key: one.run.experiment for one in plan.runs}
    needs = _needs(plan).items()
    return {key: _too_small(runs[key], need, requested_gib) for key, need in needs if need and need.gib > gib}


def _needs(plan: Plan) -> dict[str, DiskNeed | None]:
    """Run key -> its need; None where it is not known."""
    merged = {one.step.run for one in plan.after if one.step.kind is StepKind.MERGE and not one.done}
    runs = [one.run for one in plan.runs if not one.done or one.run.key in merged]
    return {run.key: _need(run.key, run.experiment, merged=run.key in merged) for run in runs}


def needed_gib(needs: Iterable[float]) -> int:
    """What is requested, with a margin: Modal's default where that suffices, and at most what Modal has."""
    return min(MOST_DISK_GIB, max(DISK_GIB, math.ceil(MARGIN * max(needs, default=0.0))))


def disk_line(disk: PrintedDisk) -> str:
    need, unknown = disk.need, f"; not known of {disk.unknown} runs" * (disk.unknown > 0)
    if need is None:
        return f"disk    {disk.gib} GiB for each container; it is not known what the runs need"
    more = f", requested from Modal ({DISK_GIB} GiB without a request)" if disk.gib > DISK_GIB else ""
    return f"disk    about {need.gib:.0f} of {disk.gib} GiB of each container{more}: {_parts(need)}{unknown}"


def _parts(need: DiskNeed) -> str:
    checkpoints = f"{counted(need.checkpoints, 'checkpoint')} of {_size(need.checkpoint)}"
    return f"{checkpoints}, a model of {_size(need.model)}, {ALSO_GIB} GiB for temporary rows and caches"


def reserved_for(experiment: Experiment) -> Reservation:
    """What the container of a run reserves; a requested disk counts as memory. Without the needs of other runs, with
    which it shares its deployment."""
    settings = experiment.executor.modal
    if settings is not None and settings.disk_gib is None:
        need = _need("", experiment, merged=False)
        settings = settings.wanted_by(disk_gib=needed_gib([need.gib] if need else []))
    return reserved_by(settings, experiment.gpu.count)


def saved_of(experiment: Experiment) -> SavedBytes | None:
    """What the run writes; None where that is not known."""
    facts = facts_for(experiment, ask_hub=False).facts
    gpu = GPUS.get(experiment.gpu.type, SOME_GPU)
    return None if facts is None else saved_bytes(with_files(experiment.axolotl), facts, gpu, experiment.gpu.count)


def _need(key: str, experiment: Experiment, *, merged: bool) -> DiskNeed | None:
    facts, found = facts_for(experiment, ask_hub=False).facts, saved_of(experiment)
    if facts is None or found is None:
        return None
    config = with_files(experiment.axolotl)
    count = _at_a_time(config, RunFacts(experiment).total_steps)
    return DiskNeed(key, count, found.checkpoint, max(found.model, 2 * facts.parameters if merged else 0))


def _at_a_time(config: Mapping[str, Any], steps: int | None) -> int:
    """The checkpoints that are on the disk together: as many as are stored, or as all that are written. One is also
    written when the run is stopped."""
    stored = int(config.get("save_total_limit") or MOST_STORED) + bool(config.get("load_best_model_at_end"))
    regular = saves_of(config, steps or MANY_STEPS) - 1  # without the final model
    return min(stored + AT_THE_SAME_TIME, regular + 1)


def _size(size: int) -> str:
    return f"{size / GIB:.1f} GiB" if size >= GIB / 10 else f"{size / 2**20:.1f} MiB"


def _too_small(experiment: Experiment, need: DiskNeed, requested_gib: int | None) -> Finding:
    """It is a gate, since the need is an estimate."""
    what = f"about {need.gib:,.0f} GiB of its container's disk: {_parts(need)}"
    if requested_gib and need.gib <= MOST_DISK_GIB:
        expected = f"the run needs {what}"
        way_out = "Leave it out: a launch requests what its runs need."
        return gate("executor.modal.disk_gib", requested_gib, expected, way_out)
    room = (MOST_DISK_GIB - ALSO_GIB) * GIB - need.model
    others = AT_THE_SAME_TIME + bool(experiment.axolotl.get("load_best_model_at_end"))
    fits = room // need.checkpoint - others if need.checkpoint else 0
    way_out = f"save_total_limit={fits}" if fits > 0 else "save_only_model=true (such a run cannot resume)"
    expected = f"A run needs {what}. Modal gives a container at most {MOST_DISK_GIB} GiB."
    return gate("save_total_limit", "", expected, f"Set {way_out}.")
