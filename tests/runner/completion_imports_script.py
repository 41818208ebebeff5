"""Complete a group and the flags of every verb, then print which heavy packages were imported for it."""

from __future__ import annotations

import sys

from runner.command import VERBS, help
from runner.command.complete import complete

complete("axosweep lora=", 14)
help.text()
for verb in VERBS.keys() - {"__complete"}:
    complete(f"axosweep {verb} --", 12 + len(verb))
print({"hydra", "omegaconf", "torch", "modal", "wandb"} & sys.modules.keys())
