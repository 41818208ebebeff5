"""The process that makes a sweep object in W&B: what is wanted on stdin, W&B's id of it on stdout."""

from __future__ import annotations

import json
import os
import sys

import wandb
import wandb.errors

from runner.wandb.messages import REFUSED, SILENT, WantedObject
from runner.wandb.upload_process import signed_in


def main() -> int:
    """Returns REFUSED when W&B lets nobody in, SILENT when it does not make one; the reason is then on stdout."""
    os.environ["WANDB_SILENT"] = "true"
    answers, sys.stdout = sys.stdout, sys.stderr  # W&B prints
    wanted = WantedObject(**json.load(sys.stdin))
    try:
        signed_in()
    except wandb.errors.Error as error:
        answers.write(str(error))
        return REFUSED
    asked = {
        "name": wanted.name,
        "method": "grid",
        "parameters": {key: {"values": list(values)} for key, values in wanted.parameters.items()},
    }
    try:
        made = wandb.sweep(asked, project=wanted.project, entity=wanted.entity or None)
    except (wandb.errors.Error, OSError) as error:
        answers.write(str(error))
        return SILENT
    json.dump(made, answers)
    return 0


if __name__ == "__main__":
    sys.exit(main())
