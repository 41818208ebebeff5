"""Patches of a trainer (transformers', or Axolotl's subclass of it), and of ranks on the CPU."""

from __future__ import annotations

import copy
import functools
import math
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from modal_app.patches.patch import module_with, require
from modal_app.store import checkpoints


def log_losses_as_they_are(trainer: Any, origin_step: int | None) -> None:
    require(trainer.args, "the trainer's args", "logging_nan_inf_filter")
    trainer.args.logging_nan_inf_filter = False


def keep_new_settings(trainer: Any, origin_step: int | None) -> None:
    """When the trainer loads the checkpoint of `origin_step`, it keeps its own settings. Later checkpoints, which it
    has saved itself, contain these settings and are loaded unchanged.

    From that checkpoint it loads the weights and the optimizer's moments. Its new schedule continues as if it had
    already run up to that step.
    """
    if origin_step is None:
        return
    require(trainer, "the trainer", "_load_optimizer_and_scheduler")
    require(trainer.state, "the trainer's state", "compute_steps")
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
            warnings.simplefilter("ignore")  # a warning that the optimizer has not stepped in this process
            for _ in range(origin_step):
                trainer.lr_scheduler.step()

    trainer._load_optimizer_and_scheduler = loaded


def restore_unlogged_loss(trainer: Any, unlogged: Mapping[str, Any] | None) -> None:
    """The attributes are checked in every run, since they must also exist when a checkpoint is saved."""
    require(trainer, "the trainer", "_tr_loss", "_globalstep_last_logged")
    if unlogged and math.isfinite(unlogged["loss"]):
        trainer._globalstep_last_logged = int(unlogged["since"])
        trainer._tr_loss += unlogged["loss"]


def show_evaluated_batches(trainer: Any, show: Callable[..., None]) -> None:
    """Call `show(model, inputs, outputs, loss, items)` after the loss of each batch that is evaluated.

    `inputs`: as the model gets them; `items`: what the trainer divides by, or None. What the trainer computes and
    returns is the same object as before.
    """
    require(trainer, "the trainer", "compute_loss")
    compute: Callable[..., Any] = trainer.compute_loss

    @functools.wraps(compute)
    def computed(model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        if model.training or not return_outputs:
            return compute(model, inputs, return_outputs=return_outputs, num_items_in_batch=num_items_in_batch)
        seen = dict(inputs)  # the trainer may take the labels out
        loss, outputs = compute(model, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch)
        show(model, seen, outputs, loss, num_items_in_batch)
        return loss, outputs

    trainer.compute_loss = computed


def let_cpu_ranks_reach_each_other() -> None:
    module_with("torch.cuda", "can_device_access_peer").can_device_access_peer = _always


def _always(device: int, peer: int) -> bool:
    return True


def _settings(group: dict[str, Any]) -> dict[str, Any]:
    return {name: copy.deepcopy(value) for name, value in group.items() if name != "params"}
