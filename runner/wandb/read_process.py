"""The process that reads sweeps from W&B: what is wanted on stdin, the runs that W&B has of it on stdout."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import wandb
import wandb.errors
import yaml

from modal_app.process.tracking import CONFIG_FILE
from runner.wandb.messages import MOST_ROWS, REFUSED, SILENT, TrackedRun, Wanted
from runner.wandb.upload_process import signed_in


def main() -> int:
    """Returns REFUSED when W&B lets nobody in, SILENT when it stops answering; the reason is then on stdout."""
    os.environ["WANDB_SILENT"] = "true"
    answers, sys.stdout = sys.stdout, sys.stderr  # W&B may print
    wanted = [Wanted(**raw) for raw in json.load(sys.stdin)]
    try:
        api = signed_in()
    except wandb.errors.Error as error:
        answers.write(str(error))
        return REFUSED
    try:
        found = [[asdict(_tracked(run)) for run in _runs(api, one)] for one in wanted]
    except (wandb.errors.Error, OSError) as error:
        answers.write(str(error))
        return SILENT
    json.dump(found, answers, default=str)
    return 0


def _runs(api: Any, wanted: Wanted) -> Iterator[Any]:
    """Oldest first; none where there is no such project."""
    path = f"{wanted.entity or api.default_entity}/{wanted.project}"
    filters = {"$or": [{"group": wanted.sweep}, {"tags": {"$in": [wanted.tag]}}]}
    try:
        yield from api.runs(path, filters=filters, order="+created_at", per_page=100, lazy=False)
    except ValueError:  # what the SDK raises of a project that is not there
        return


def _tracked(run: Any) -> TrackedRun:
    return TrackedRun(
        id=run.id,
        state=run.state,
        config=dict(run.config),
        summary=dict(run.summary_metrics),
        history=tuple(run.history(samples=MOST_ROWS, pandas=False)),
        composed=_composed(run),
    )


def _composed(run: Any) -> Mapping[str, Any] | None:
    """Its composed config, as its first attempt left it; None where that was never uploaded."""
    for file in run.files(names=[CONFIG_FILE]):
        with tempfile.TemporaryDirectory() as folder, file.download(root=folder, replace=True) as text:
            loaded = yaml.safe_load(text)
            return loaded if isinstance(loaded, dict) else None
    return None


if __name__ == "__main__":
    sys.exit(main())
