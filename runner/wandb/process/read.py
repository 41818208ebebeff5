"""Reads the runs of sweeps from W&B."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from modal_app.process.tracking import CONFIG_FILE
from runner.wandb.history import MOST_ROWS
from runner.wandb.messages import ReadRequest, ReadResponse, SweepLocation, TrackedRun


def read(api: Any, request: ReadRequest) -> ReadResponse:
    return ReadResponse(tuple(tuple(map(_tracked_run, _runs(api, one))) for one in request.locations))


def _runs(api: Any, location: SweepLocation) -> Iterator[Any]:
    """The runs of a location, oldest first; none if there is no such project."""
    path = f"{location.entity or api.default_entity}/{location.project}"
    filters = {"$or": [{"group": location.sweep}, {"tags": {"$in": [location.tag]}}]}
    try:
        yield from api.runs(path, filters=filters, order="+created_at", per_page=100, lazy=False)
    except ValueError:  # the SDK raises it for a project that does not exist
        return


def _tracked_run(run: Any) -> TrackedRun:
    return TrackedRun(
        id=run.id,
        state=run.state,
        config=dict(run.config),
        summary=dict(run.summary_metrics),
        history=tuple(run.history(samples=MOST_ROWS, pandas=False)),
        composed=_composed_config(run),
    )


def _composed_config(run: Any) -> Mapping[str, Any] | None:
    """The config that the run's first attempt uploaded; None if it did not."""
    for file in run.files(names=[CONFIG_FILE]):
        with tempfile.TemporaryDirectory() as folder, file.download(root=folder, replace=True) as text:
            loaded = yaml.safe_load(text)
            return loaded if isinstance(loaded, dict) else None
    return None
