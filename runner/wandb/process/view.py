"""Builds and saves a workspace view of a sweep: the swept parameters against the loss, and the curves.

wandb-workspaces, the extra `wandb-view`, is imported by the functions that need it, since other requests do not.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from modal_app.process.tracking import sweep_tag
from runner.wandb.history import EVAL_LOSS, STEP, TRAIN_LOSS
from runner.wandb.messages import SweepView, ViewRequest, ViewResponse
from runner.wandb.process import sdk
from runner.wandb.process.here import problem_here

LOG_FROM = 10.0
"""A swept number gets a logarithmic axis if its largest value is at least this many times its smallest."""


def preview(request: ViewRequest) -> ViewResponse:
    """The view as W&B would get it, without calling W&B."""
    workspace = _workspace(request.view, request.view.entity or "ENTITY")
    return ViewResponse(model=json.loads(workspace._to_model().model_dump_json(by_alias=True)))


def save(api: Any, request: ViewRequest) -> ViewResponse:
    entity = request.view.entity or str(api.default_entity)
    try:
        return ViewResponse(url=_workspace(request.view, entity).save().url)
    except (*sdk.ERRORS, ValueError) as error:
        if problem_here(error):
            raise
        return ViewResponse(error=str(error).strip())


def _workspace(view: SweepView, entity: str) -> Any:
    from wandb_workspaces import workspaces as ws
    from wandb_workspaces.reports import v2

    wr: Any = v2  # it re-exports with *, which mypy does not follow

    columns = [
        wr.ParallelCoordinatesPlotColumn(wr.Config(name), display_name=name, log=_is_wide(values) or None)
        for name, values in view.params.items()
    ]
    objective = wr.ParallelCoordinatesPlotColumn(wr.SummaryMetric(EVAL_LOSS), display_name=EVAL_LOSS)
    comparison = [
        wr.ParallelCoordinatesPlot(columns=[*columns, objective]),
        wr.ParameterImportancePlot(with_respect_to=EVAL_LOSS),
        wr.RunComparer(diff_only=True),
    ]
    curves = [wr.LinePlot(title=name, x=STEP, y=[name], max_runs_to_show=100) for name in (EVAL_LOSS, TRAIN_LOSS)]
    return ws.Workspace(
        entity=entity,
        project=view.project,
        name=view.sweep,
        sections=[
            ws.Section("Compare", panels=comparison, is_open=True),
            ws.Section("Curves", panels=curves, is_open=True),
        ],
        settings=ws.WorkspaceSettings(x_axis=STEP, max_runs=100),
        runset_settings=ws.RunsetSettings(
            filters=ws.Or(ws.Metric("Group") == view.sweep, ws.Tags().isin([sweep_tag(view.sweep)])),
            order=[ws.Ordering(ws.Summary(EVAL_LOSS), ascending=True)],
        ),
    )


def _is_wide(values: Sequence[Any]) -> bool:
    """Whether values span factors, like learning rates."""
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    return len(numbers) == len(values) > 0 and min(numbers) > 0 and max(numbers) / min(numbers) >= LOG_FROM
