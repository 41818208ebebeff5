"""The random state with which an epoch begins, stored in each checkpoint of the epoch.

Some samplers, such as that of group_by_length, draw the order of an epoch from it. The Trainer restores only the state
with which a checkpoint was saved, so a run that resumes in the middle of an epoch would go on in another order. It
would train on some rows twice, and on others not at all.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch


class EpochStart:
    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._state = torch.random.get_rng_state()

    def begin(self, epoch: float, resumed_from: Path | None) -> None:
        """Called before the Trainer draws the order. `epoch`: how many were trained, with the part of the last one.
        `resumed_from`: the checkpoint, in the first epoch of a run that resumes."""
        if resumed_from is not None:
            if float(epoch).is_integer():
                self._trainer._load_rng_state(str(resumed_from))  # as the Trainer does, but only after this
            elif (file := self._file(resumed_from)).exists():  # an earlier version has stored none
                torch.random.set_rng_state(torch.load(file, weights_only=True))
        self._state = torch.random.get_rng_state()

    def save(self, checkpoint: Path) -> None:
        checkpoint.mkdir(parents=True, exist_ok=True)  # another rank may be later, and create it
        torch.save(self._state, self._file(checkpoint))

    def _file(self, checkpoint: Path) -> Path:
        """Of this rank."""
        return checkpoint / f"epoch_start_{self._trainer.args.process_index}.pt"
