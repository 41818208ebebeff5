"""Log runs with the SDK: `python log_runs_script.py RUNS`, a JSON list with the arguments of `init` and the rows of
each."""

from __future__ import annotations

import json
import sys

import wandb

for one in json.loads(sys.argv[1]):
    run = wandb.init(**one["init"])
    for row in one["rows"]:
        run.log(row)
    run.finish()
