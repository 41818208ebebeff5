"""This process as one rank of a step: what the worker shares with the plugin, which Axolotl creates."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field

from modal_app.store import start_checkpoint
from modal_app.store.layout import Attempt, StepFolder, Store
from modal_app.store.step import FOLLOW_UP_KINDS, Step, StepKind

PHASE_AFTER = {"": "import", "import": "config", "config": "prepare", "prepare": "load", "load": "train"}


class Clock:
    """Assigns the time since the last call to a phase: import, config, prepare, load, first, train, eval, save."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.cpu: dict[str, float] = {}
        """Of these, the processor seconds of this process: the work of other processes does not lengthen them."""
        self._last, self._cpu_last = time.monotonic(), time.process_time()
        self._newest = ""

    def book(self, phase: str) -> None:
        now, cpu = time.monotonic(), time.process_time()
        self.seconds[phase] = round(self.seconds.get(phase, 0.0) + now - self._last, 3)
        self.cpu[phase] = round(self.cpu.get(phase, 0.0) + cpu - self._cpu_last, 3)
        self._last, self._cpu_last, self._newest = now, cpu, phase

    @property
    def phase(self) -> str:
        """The present phase."""
        return PHASE_AFTER.get(self._newest, "train")


@dataclass(slots=True)
class Rank:
    step: Step
    folder: StepFolder
    attempt: Attempt
    clock: Clock = field(default_factory=Clock)
    eval_fingerprint: str | None = None
    """Of the held-out rows, once a run that reads its own data has read them."""
    no_row_losses: str | None = None
    """Why there are no losses of each held-out row, if that is so."""
    to_be_continued: bool = False
    """Whether training ends now before its last step, to be resumed from the checkpoint that is saved."""
    weights_step: int | None = None
    """The optimizer step of the weights that an evaluate step rates."""

    @property
    def store(self) -> Store:
        """The store that the step's folder belongs to."""
        return Store(self.folder.path.parents[3 if self.step.kind in FOLLOW_UP_KINDS else 1])

    @property
    def number(self) -> int:
        return int(os.environ.get("RANK", "0"))

    @property
    def origin_step(self) -> int | None:
        """The step of another run's checkpoint from which a run goes on; None for a run that starts at step 0."""
        if self.step.kind is not StepKind.TRAIN:
            return None
        checkpoint = start_checkpoint.start_checkpoint_of(self.step.config, self.attempt.path)
        return None if checkpoint is None else start_checkpoint.step_of(checkpoint)


_current: Rank | None = None


def become(rank: Rank) -> Rank:
    global _current
    _current = rank
    return rank


def current() -> Rank:
    assert _current is not None, "the plugin works only under axosweep's worker"
    return _current
