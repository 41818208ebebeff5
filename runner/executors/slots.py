"""How many steps this machine has room for."""

from __future__ import annotations

import os
from dataclasses import dataclass

from modal_app.process.threads import usable_cores
from modal_app.store.step import Device
from runner.errors import SweepError
from runner.executors.cards import VISIBLE, usable_cards
from runner.types import Plan


@dataclass(frozen=True, slots=True)
class Slots:
    """How many steps this machine has room for."""

    total: int
    """Cores for CPU ranks, cards for GPU ranks."""
    parallel: int | None = None
    """The most steps at a time."""
    cards: tuple[str, ...] = ()
    """The cards, by the names that CUDA_VISIBLE_DEVICES takes; none on a CPU."""


def machine_slots(device: Device, processes: int, parallel: int | None) -> Slots:
    """The room on this machine for runs of up to `processes` ranks.

    Raises SweepError when it has too few GPUs.
    """
    if device is Device.CPU:
        return Slots(usable_cores(), parallel)
    cards = usable_cards()
    if missing := _too_few(len(cards), processes):
        raise SweepError(missing)
    return Slots(len(cards), parallel, cards)


def missing_cards(plan: Plan) -> str:
    """Why this machine's cards are not enough for the pending runs; empty when they are."""
    processes = [one.step.processes for one in plan.pending if one.step.device is Device.CUDA]
    return _too_few(len(usable_cards()), max(processes)) if processes else ""


def _too_few(cards: int, processes: int) -> str:
    if cards >= processes:
        return ""
    visible = f" that {VISIBLE}={os.environ[VISIBLE]} names" if VISIBLE in os.environ else ""
    return (
        f"executor=local needs {processes} NVIDIA GPU(s) for this, but the machine has {cards}{visible}. Use "
        "executor=modal to rent them, or gpu=cpu with model=tiny to try it here."
    )
