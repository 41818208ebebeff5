"""Runs -> how each is called on Modal: its GPUs, and the most containers of its kind. Pure.

Modal has a pool of containers per variant of a function (its GPUs, its timeout), and caps each pool separately. So a
cap on the sweep is split over its variants before anything starts, and no process has to stay alive to enforce it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from runner.config.gpus import modal_gpus
from runner.errors import SweepError
from runner.types import ExecutorChoice, Gpu, Plan


@dataclass(frozen=True, slots=True)
class Variant:
    """One pool of containers."""

    gpus: tuple[str, ...]
    """Modal's names, best first, such as `H100:2`; empty for the CPU."""
    cards: int
    """GPUs of one container."""

    def __str__(self) -> str:
        return " or ".join(self.gpus) or "cpu"


@dataclass(frozen=True, slots=True)
class Placement:
    """What a run requests from Modal."""

    variant: Variant
    max_containers: int | None
    """Of all runs of its variant together; None is Modal's own limit."""


def placements(plan: Plan, choice: ExecutorChoice) -> dict[str, Placement]:
    """Run key -> placement, for everything that is not done.

    Raises SweepError for GPUs that Modal does not have, and for caps that leave a variant without a container.
    """
    variants = {planned.run.key: _variant(planned.run.experiment.gpu) for planned in plan.pending}
    containers = split(Counter(variants.values()), choice.max_gpus, choice.parallel)
    gpus = {planned.run.key: planned.run.experiment.gpu for planned in plan.runs}
    later = placements_after({one.step.run: gpus[one.step.run] for one in plan.after})
    return later | {key: Placement(variant, containers.get(variant)) for key, variant in variants.items()}


def placements_after(gpus: Mapping[str, Gpu]) -> dict[str, Placement]:
    """Run key -> placement, for follow-up steps."""
    return {key: Placement(_variant(gpu), None) for key, gpu in gpus.items()}


@dataclass(frozen=True, slots=True)
class Containers:
    """The containers of one variant, and the pending runs that they do."""

    variant: str
    runs: int
    containers: int
    reused: bool
    """Whether a container does several runs, one after the other."""

    def text(self, *, with_variant: bool = False) -> str:
        """For people."""
        runs = f"{self.runs} runs{f' on {self.variant}' if with_variant else ''}"
        if self.reused:
            return f"{runs} in {self._in_turn()}"
        if self.containers < self.runs:
            return f"{runs}, {self.containers} at a time, each in a container of its own"
        return f"{runs}, each in a container of its own"

    def _in_turn(self) -> str:
        if self.containers == 1:
            return "1 container, which takes them in turn"
        fewest, more = divmod(self.runs, self.containers)
        each = f"{fewest} or {fewest + 1}" if more else str(fewest)
        return f"{self.containers} containers, each of which takes about {each} in turn"


def containers_of(plan: Plan, placed: Mapping[str, Placement], *, reuse: bool) -> list[Containers]:
    """The containers of each variant, in the plan's order. `reuse`: whether containers may be reused."""
    counts = Counter(placed[one.run.key] for one in plan.pending)
    parts = [(str(one.variant), runs, min(one.max_containers or runs, runs)) for one, runs in counts.items()]
    return [Containers(variant, runs, most, reuse and most < runs) for variant, runs, most in parts]


def one_gpu(placement: Placement) -> Placement:
    """For a follow-up step: a single GPU of the run's kind, the best of a list. The sweep's caps do not apply."""
    gpus = tuple(one.partition(":")[0] for one in placement.variant.gpus[:1])
    return Placement(Variant(gpus, len(gpus)), None)


def split(wanted: Mapping[Variant, int], max_gpus: int | None, parallel: int | None) -> dict[Variant, int]:
    """Containers per variant. `wanted`: the runs of each variant. Every variant gets one; the rest are split by the
    highest averages method (the next goes to the variant with the most runs per container that still fits).

    Empty without a cap. Raises SweepError when one container of each variant exceeds a cap.

    >>> two, four = Variant(("H100:2",), 2), Variant(("H100:4",), 4)
    >>> [*split({two: 6, four: 2}, 12, None).values()]
    [4, 1]
    """
    if max_gpus is None and parallel is None:
        return {}
    _refuse_too_little(wanted, max_gpus, parallel)
    containers = dict.fromkeys(wanted, 1)
    while True:
        gpus, runs = sum(one.cards * count for one, count in containers.items()), sum(containers.values())
        fitting = [
            one
            for one, count in containers.items()
            if count < wanted[one]
            and (max_gpus is None or gpus + one.cards <= max_gpus)
            and (parallel is None or runs < parallel)
        ]
        if not fitting:
            return containers
        containers[max(fitting, key=lambda one: wanted[one] / containers[one])] += 1


def _variant(gpu: Gpu) -> Variant:
    gpus = modal_gpus(gpu)
    return Variant(gpus, gpu.count if gpus else 0)


def _refuse_too_little(wanted: Mapping[Variant, int], max_gpus: int | None, parallel: int | None) -> None:
    most = max((one.cards for one in wanted), default=0)
    if max_gpus is not None and most > max_gpus:
        raise SweepError(
            f"executor.max_gpus={max_gpus}, but one run alone needs {most} GPUs. Raise executor.max_gpus to {most}, "
            "or lower gpu.count."
        )
    each, kinds = sum(one.cards for one in wanted), ", ".join(map(str, wanted))
    why = f"Modal caps each kind of container separately, and this sweep has {len(wanted)} ({kinds}); one of each is"
    if max_gpus is not None and each > max_gpus:
        raise SweepError(
            f"executor.max_gpus={max_gpus} is too low: {why} {each} GPUs. Raise it to {each}, or launch one sweep per "
            "gpu."
        )
    if parallel is not None and len(wanted) > parallel:
        raise SweepError(
            f"executor.parallel={parallel} is too low: {why} {len(wanted)} at a time. Raise it to {len(wanted)}, or "
            "launch one sweep per gpu."
        )
