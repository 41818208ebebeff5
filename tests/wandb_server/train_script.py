"""Three steps of a run with an artifact: `python train_script.py MODE FIRST EXIT_CODE ID`; 9 is a preempted one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal, cast

import wandb


def main(mode: str, first: int, exit_code: int, id: str) -> None:
    run = wandb.init(
        project="project", id=id, name="lora_r=8", resume="allow", group="sweep-a", job_type="train", tags=["mine"],
        mode=cast(Literal["online", "offline"], mode), config={"lora_r": 8},
    )  # fmt: skip
    for step in range(first, first + 3):
        run.log({"train/global_step": step, "train/loss": 1 / (step + 1)})
    Path("note.txt").write_text(f"attempt at {first}")
    artifact = wandb.Artifact("note", type="text")
    artifact.add_file("note.txt")
    run.log_artifact(artifact)
    if exit_code == 9:
        run.mark_preempting()
    run.finish(exit_code=exit_code)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
