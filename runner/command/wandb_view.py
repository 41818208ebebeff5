"""`axosweep wandb-view`: a W&B workspace of one sweep: what was swept against what came of it, and the curves.

Needs the extra `wandb-view` (wandb-workspaces). The view is built without a login; saving it asks W&B.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modal_app.process.tracking import Kept, sweep_tag
from modal_app.store.layout import Store
from modal_app.store.step import StepKind
from runner.compare.ranking import compare_sweep
from runner.console import terminal
from runner.console.print_json import print_json
from runner.errors import SweepError
from runner.wandb import account

OBJECTIVE, TRAINING, STEP = "eval/loss", "train/loss", "train/global_step"
LOG_FROM = 10.0
"""A swept number gets a logarithmic axis when its largest value is so many times its smallest."""


@dataclass(frozen=True, slots=True)
class Viewed:
    """What a view is made of."""

    sweep: str
    project: str
    entity: str
    params: Mapping[str, Sequence[Any]]
    """The swept parameters, each with its values."""


def show(store: Store, sweep: str, *, dry_run: bool, as_json: bool) -> int:
    """Save the view and tell its address; `dry_run`: print it, save nothing. Raises SweepError without the extra, a
    key, or a tracked run."""
    viewed = _viewed(store, sweep)
    _require_extra()
    if dry_run:
        entity = viewed.entity or "ENTITY"
        view = model(viewed, entity)
        if as_json:
            print_json({"sweep": sweep, "view": view})
        else:
            print(json.dumps(view, indent=1))  # as W&B takes it
        return 0
    if not account.has_key():
        raise SweepError(
            f"Saving a view needs a key for {account.host()}: `wandb login`, or {account.KEY}. --dry-run prints it."
        )
    url = _save(viewed)
    if as_json:
        print_json({"sweep": sweep, "url": url})
    else:
        terminal.result(url)
        terminal.message(f"It shows what W&B has: axosweep sync {sweep} brings it up to date.")
    return 0


def model(viewed: Viewed, entity: str) -> dict[str, Any]:
    """The view as W&B is sent it."""
    found: dict[str, Any] = json.loads(_workspace(viewed, entity)._to_model().model_dump_json(by_alias=True))
    return found


def _viewed(store: Store, sweep: str) -> Viewed:
    rows = compare_sweep(store, sweep)
    kept = [Kept.read(store.folder(StepKind.TRAIN, row.key).tracking) for row in rows]
    first = next((one for one in kept if one is not None), None)
    if first is None:
        raise SweepError(
            f"No run of {sweep} was ever tracked (tracking=disabled, or not begun): there is no view of it."
        )
    names = dict.fromkeys(name for row in rows for name in row.params)
    params = {name: [row.params[name] for row in rows if name in row.params] for name in names}
    return Viewed(sweep, first.project or "axosweep", first.entity, params)


def _workspace(viewed: Viewed, entity: str) -> Any:
    from wandb_workspaces import workspaces as ws
    from wandb_workspaces.reports import v2

    wr: Any = v2  # it exports by *, which mypy does not follow

    columns = [
        wr.ParallelCoordinatesPlotColumn(wr.Config(name), display_name=name, log=_is_wide(values) or None)
        for name, values in viewed.params.items()
    ]
    objective = wr.ParallelCoordinatesPlotColumn(wr.SummaryMetric(OBJECTIVE), display_name=OBJECTIVE)
    compared = [
        wr.ParallelCoordinatesPlot(columns=[*columns, objective]),
        wr.ParameterImportancePlot(with_respect_to=OBJECTIVE),
        wr.RunComparer(diff_only=True),
    ]
    curves = [wr.LinePlot(title=name, x=STEP, y=[name], max_runs_to_show=100) for name in (OBJECTIVE, TRAINING)]
    return ws.Workspace(
        entity=entity,
        project=viewed.project,
        name=viewed.sweep,
        sections=[
            ws.Section("Compare", panels=compared, is_open=True),
            ws.Section("Curves", panels=curves, is_open=True),
        ],
        settings=ws.WorkspaceSettings(x_axis=STEP, max_runs=100),
        runset_settings=ws.RunsetSettings(
            filters=ws.Or(ws.Metric("Group") == viewed.sweep, ws.Tags().isin([sweep_tag(viewed.sweep)])),
            order=[ws.Ordering(ws.Summary(OBJECTIVE), ascending=True)],
        ),
    )


def _is_wide(values: Sequence[Any]) -> bool:
    """Whether values lie on a scale of factors, as learning rates do."""
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    return len(numbers) == len(values) > 0 and min(numbers) > 0 and max(numbers) / min(numbers) >= LOG_FROM


def _save(viewed: Viewed) -> str:
    import wandb
    import wandb.errors

    try:
        entity = viewed.entity or str(wandb.Api().default_entity)
        url: str = _workspace(viewed, entity).save().url
    except (wandb.errors.Error, ValueError, OSError) as error:
        raise SweepError(f"W&B did not take the view: {error}") from error
    return url


def _require_extra() -> None:
    import importlib.util

    if importlib.util.find_spec("wandb_workspaces") is None:
        raise SweepError(
            "The view is made with wandb-workspaces, which is not here: pip install 'axosweep[wandb-view]', or in the "
            "checkout: .venv/bin/uv pip install --python .venv/bin/python 'wandb-workspaces>=0.4.13,<0.5'"
        )
