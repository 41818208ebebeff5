"""Find runs by group or tag, change the first one, and print what the SDK's reader returns for it."""

from __future__ import annotations

import json

import wandb

runs = wandb.Api().runs("project", filters={"$or": [{"group": "sweep-a"}, {"tags": {"$in": ["sweep:sweep-a"]}}]})
first = runs[0]
first.tags.append("sweep:sweep-b")
first.summary["dollars"] = 1.5
first.update()
others = len(wandb.Api().runs("project", filters={"group": "sweep-b"}))
scanned = [row["_step"] for row in first.scan_history()]
files = sorted(file.name for file in first.files())
history = first.history(pandas=False)
print(json.dumps([len(runs), others, first.state, dict(first.config), history, scanned, files]))
