"""How many steps this machine has room for."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass

from modal_app.store.step import Device
from runner.errors import SweepError
from runner.types import Plan


@dataclass(frozen=True, slots=True)
class Slots:
    """How many steps this machine has room for."""

    device: Device
    total: int
    """Cores for CPU ranks, cards for GPU ranks."""
    parallel: int | None = None
    """The most steps at a time."""


def machine_slots(device: Device, processes: int, parallel: int | None) -> Slots:
    """The room on this machine for runs of up to `processes` ranks.

    Raises SweepError when it has too few GPUs.
    """
    if device is Device.CPU:
        return Slots(device, os.cpu_count() or 1, parallel)
    cards = _gpu_count()
    if missing := _too_few(cards, processes):
        raise SweepError(missing)
    return Slots(device, cards, parallel)


def missing_cards(plan: Plan) -> str:
    """Why this machine's cards are not enough for the pending runs; empty when they are."""
    processes = [one.step.processes for one in plan.pending if one.step.device is Device.CUDA]
    return _too_few(_gpu_count(), max(processes)) if processes else ""


def _too_few(cards: int, processes: int) -> str:
    if cards >= processes:
        return ""
    return (
        f"executor=local needs {processes} NVIDIA GPU(s) for this, but the machine has {cards}. Use executor=modal to "
        "rent them, or gpu=cpu with model=tiny to try it here."
    )


def _gpu_count() -> int:
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True).stdout
    except (FileNotFoundError, subprocess.CalledProcessError):
        return 0
    return sum(line.startswith("GPU ") for line in listed.splitlines())
