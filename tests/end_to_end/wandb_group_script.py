"""Print what the SDK's reader returns for the runs that filters select: `python wandb_group_script.py FILTERS`."""

from __future__ import annotations

import json
import sys

import wandb

print(
    json.dumps(
        [
            {
                "id": run.id,
                "name": run.name,
                "group": run.group,
                "state": run.state,
                "config": dict(run.config),
                "summary": run.summary_metrics,
                "tags": run.tags,
                "notes": run.notes,
                "job_type": run.job_type,
                "history": run.history(samples=1000, pandas=False),
                "files": [file.name for file in run.files()],
            }
            for run in wandb.Api().runs("axosweep", filters=json.loads(sys.argv[1]))
        ]
    )
)
