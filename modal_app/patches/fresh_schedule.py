"""What a run that goes on from another run's checkpoint takes of it: weights and the optimizer's moments, no settings.

A checkpoint restores the learning rate, the weight decay and the betas that it was saved with, a scheduler its base
rate, the trainer's state how often to log, evaluate and save: what the new config says of them would be without effect,
and without a word. Here they are the new config's, and the new schedule stands where it would be at that step.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from modal_app.store import checkpoints


def keep_settings(trainer: Any, origin_step: int) -> None:
    """Let the trainer, when it loads the checkpoint of `origin_step`, keep the settings that it was made with. One that
    it has saved itself, later, has them already, and is loaded as it is."""
    load: Callable[[str | None], None] = trainer._load_optimizer_and_scheduler

    def loaded(checkpoint: str | None) -> None:
        if checkpoint is None or checkpoints.step_number(Path(checkpoint)) != origin_step:
            load(checkpoint)
            return
        groups = [_settings(group) for group in trainer.optimizer.param_groups]
        beginning = copy.deepcopy(trainer.lr_scheduler.state_dict())
        load(checkpoint)
        trainer.state.compute_steps(trainer.args, trainer.state.max_steps)
        for group, settings in zip(trainer.optimizer.param_groups, groups, strict=True):
            group.update(settings)
        trainer.lr_scheduler.load_state_dict(beginning)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # no optimizer step has been taken in this process
            for _ in range(origin_step):
                trainer.lr_scheduler.step()

    trainer._load_optimizer_and_scheduler = loaded


def _settings(group: dict[str, Any]) -> dict[str, Any]:
    return {name: copy.deepcopy(value) for name, value in group.items() if name != "params"}
