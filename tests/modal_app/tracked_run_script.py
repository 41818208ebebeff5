"""Log two rows as a train step that W&B tracks online: `python tracked_run_script.py STORE STEP`, as JSON."""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path

import wandb

from modal_app.patches.apply import apply_tracking_patches
from modal_app.process import tracking
from modal_app.process.rank import Rank
from modal_app.store.layout import Store
from modal_app.store.step import Step


def main(root: str, text: str) -> None:
    step = Step.from_json(text)
    folder = Store(Path(root)).folder(step.kind, step.key)
    os.environ.update(tracking.variables(step, folder))
    apply_tracking_patches(functools.partial(tracking.go_offline, Rank(step, folder, folder.attempt(1))))
    run = wandb.init(project=os.environ["WANDB_PROJECT"])  # as transformers does
    for number in (0, 1):
        run.log({"train/global_step": number, "train/loss": 1.0})
    run.finish()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
