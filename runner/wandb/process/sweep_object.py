"""Creates a sweep object in W&B."""

from __future__ import annotations

import wandb

from runner.wandb.messages import SweepObjectRequest, SweepObjectResponse


def create(request: SweepObjectRequest) -> SweepObjectResponse:
    config = {
        "name": request.name,
        "method": "grid",
        "parameters": {key: {"values": list(values)} for key, values in request.parameters.items()},
    }
    return SweepObjectResponse(wandb.sweep(config, project=request.project, entity=request.entity or None))
