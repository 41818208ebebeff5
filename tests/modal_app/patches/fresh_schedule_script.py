"""A real optimizer and scheduler that load a checkpoint through the patches of a trainer; prints their state.

Run with the trainer's Python: `python fresh_schedule_script.py CHECKOUT`.
"""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace
from typing import Any

import torch

ORIGIN_STEP = 6


def made(rate: float, decay: float, beta: float) -> tuple[Any, Any, Any]:
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([weight], lr=rate, weight_decay=decay, betas=(beta, 0.99))
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    return weight, optimizer, scheduler


def saved() -> dict[str, Any]:
    """What the earlier run has saved after six steps."""
    weight, optimizer, scheduler = made(0.5, 0.1, 0.9)
    for _ in range(ORIGIN_STEP):
        weight.grad = torch.ones(3)
        optimizer.step()
        scheduler.step()
    return {"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}


def loaded(step: int) -> dict[str, Any]:
    from modal_app.patches.apply import apply_trainer_patches

    _, optimizer, scheduler = made(0.02, 0.3, 0.8)
    state, told = saved(), []

    def load(checkpoint: str | None) -> None:
        optimizer.load_state_dict(state["optimizer"])
        scheduler.load_state_dict(state["scheduler"])

    trainer = SimpleNamespace(
        optimizer=optimizer,
        lr_scheduler=scheduler,
        args=SimpleNamespace(logging_nan_inf_filter=True),
        state=SimpleNamespace(max_steps=40, compute_steps=lambda *given: told.append(given[1:])),
        _load_optimizer_and_scheduler=load,
    )
    apply_trainer_patches(trainer, ORIGIN_STEP)
    trainer._load_optimizer_and_scheduler(f"model/checkpoint-{step}")
    (group,), (moments,) = optimizer.param_groups, optimizer.state.values()
    return {
        "rate": group["lr"],
        "decay": group["weight_decay"],
        "beta": group["betas"][0],
        "steps": float(moments["step"]),
        "moment": moments["exp_avg"][0].item(),
        "at": scheduler.last_epoch,
        "cadences": told,
    }


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    print(json.dumps({"origin": loaded(ORIGIN_STEP), "own": loaded(ORIGIN_STEP + 1)}))
