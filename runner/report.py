"""Rows and plans as people read them (a table) and as scripts do (--json). Results go to stdout."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from modal_app.layout import SUBMISSION, Store
from runner import terminal
from runner.compare import Row
from runner.costs import SweepCost, money, sweep_cost
from runner.ledger import Ledger
from runner.params import label, params_of, show_value
from runner.status import SweepStatus
from runner.store import is_mirror, read_json
from runner.types import Plan, PlannedRun

Cell = str | None
STATUS_COLOURS = {
    "succeeded": "green",
    "failed": "red",
    "lost": "red",
    "blocked": "red",
    "stopped": "yellow",
    "running": "cyan",
    "pending": "dim",
}


def show_plan(
    plan: Plan,
    store: Store,
    *,
    as_json: bool,
    console: Console | None = None,
    beyond: Mapping[str, Any] | None = None,
) -> None:
    """What would run, once each. With a launch it precedes the progress; as JSON it stands alone, with what is `beyond`
    the list of runs.
    """
    if as_json:
        print_json({**_plan_json(plan, store), **(beyond or {})})
        return
    console = console or terminal.results()
    done = len(plan.runs) - len(plan.pending)
    copies = sum(planned.copies - 1 for planned in plan.runs)
    console.print(f"[bold]{plan.sweep}[/bold]: {_count(len(plan.runs), 'run')}, {_datasets(plan)}")
    if copies:
        console.print(f"{_count(copies, 'duplicate')} left out: the same run is trained once.")
    for planned, params in _with_params(plan.runs):
        word = "[green]finished[/green]" if planned.done else "to train"
        console.print(f"  {planned.run.key}  data {planned.run.data_key}  {word:<9}  {escape(params)}", soft_wrap=True)
    for found in plan.unresolved:
        console.print(
            f"[yellow]unresolved[/yellow] {escape(f'{found.at}={found.text}: {found.problem}')}", soft_wrap=True
        )
    if done:
        rest = "nothing to do" if done == len(plan.runs) else f"{len(plan.pending)} to train"
        console.print(f"{_count(done, 'run')} finished before, skipped; {rest}.")


def names_of(plan: Plan) -> dict[str, str]:
    """What each run is called, by its key: what tells it from the others."""
    return {planned.run.key: params or planned.run.key for planned, params in _with_params(plan.runs)}


def show_rows(rows: Sequence[Row], store: Store, sweep: str, *, as_json: bool) -> None:
    """The comparison: one table per eval fingerprint, the best run marked in each."""
    if as_json:
        cost = cost_of(store, sweep)
        described = {"sweep": sweep, "store": str(store.root), "cost": cost.as_json() if cost else None}
        print_json(described | {"runs": [asdict(row) for row in rows]})
        return
    console = terminal.results()
    console.print()
    tables = [list(group) for _, group in groupby(rows, key=lambda row: row.eval_fingerprint)]
    for index, group in enumerate(tables):
        console.print(rows_table(group, title=_title(sweep, group, index, len(tables))))
    for line in cost_lines(store, sweep, rows):
        console.print(line, markup=False, soft_wrap=True)
    for row in rows:
        if row.message:
            console.print(f"[red]{row.key} {row.status}[/red]: {escape(row.message)}", soft_wrap=True)
            console.print(f"  log: {escape(row.log)}", soft_wrap=True)
    if len(tables) > 1:
        console.print(
            "These runs are judged by different held-out rows: their losses do not compare. A sweep over seed keeps the"
            " rows with data.seed=N.",
            soft_wrap=True,
        )
    best = next((row for row in rows if row.is_best), None)
    if best and len(tables) == 1:
        console.print(f"Best: {best.key}  {escape(label(best.params))}".rstrip(), soft_wrap=True)
        what = "model" if (Path(best.folder) / "model" / "model.safetensors").exists() else "adapter"
        console.print(f"Its {what}: {escape(_adapter(best, store, sweep))}", soft_wrap=True)
    console.print(
        f"Everything: {escape(str(store.root))} (runs/<run>, prepared/<data>, sweeps/{sweep})", soft_wrap=True
    )


def cost_of(store: Store, sweep: str) -> SweepCost | None:
    """What a sweep has cost so far; None where there is no price."""
    return sweep_cost(store, sweep, Ledger(store, sweep).plan().runs)


def cost_lines(store: Store, sweep: str, rows: Sequence[Row]) -> list[str]:
    """The dollars of a sweep for people; nothing where there is no price."""
    cost = cost_of(store, sweep)
    return cost.lines(going_on=any(row.status in ("running", "pending") for row in rows)) if cost else []


def _adapter(row: Row, store: Store, sweep: str) -> str:
    """Where the adapter lies; a mirror has none, and says how it is fetched."""
    if not is_mirror(store):
        return f"{row.folder}/model"
    names = read_json(store.sweeps / sweep / SUBMISSION).get("names", {})
    return f"modal volume get {names.get('runs_volume', 'VOLUME')} runs/{row.key}/model"


def show_sweeps(sweeps: Sequence[SweepStatus], store: Store, *, as_json: bool) -> None:
    """Every sweep with its counts, the newest first."""
    if as_json:
        print_json({"store": str(store.root), "sweeps": [asdict(sweep) for sweep in sweeps]})
        return
    table = Table(box=None, pad_edge=False)
    words = [word for word in STATUS_ORDER if any(sweep.counts.get(word) for sweep in sweeps)]
    longest = max((len(sweep.sweep) for sweep in sweeps), default=1)
    priced = any(sweep.dollars is not None for sweep in sweeps)
    for heading in ("sweep", "first asked", "runs", *words, *(["dollars"] if priced else [])):
        left = heading in ("sweep", "first asked")
        width = longest if heading == "sweep" else 1  # a name is there to be typed: it is never cut
        table.add_column(heading, justify="left" if left else "right", min_width=width, no_wrap=True)
    for sweep in sweeps:
        asked = time.strftime("%d %b %H:%M", time.localtime(sweep.created_at))
        counts = [sweep.counts.get(word, 0) for word in words]
        dollars = ["" if sweep.dollars is None else money(sweep.dollars)] if priced else []
        table.add_row(sweep.sweep, asked, str(sweep.runs), *(str(count or "") for count in counts), *dollars)
    terminal.results().print(table)


STATUS_ORDER = ("succeeded", "running", "pending", "blocked", "stopped", "failed", "lost")


def print_json(value: Any) -> None:
    """JSON that any parser reads: a loss that became NaN is null."""
    json.dump(_finite(value), sys.stdout, indent=1, allow_nan=False)
    sys.stdout.write("\n")


def _finite(value: Any) -> Any:
    match value:
        case float() if not math.isfinite(value):
            return None
        case Mapping():
            return {key: _finite(item) for key, item in value.items()}
        case list() | tuple():
            return [_finite(item) for item in value]
        case _:
            return value


def _title(sweep: str, rows: Sequence[Row], index: int, tables: int) -> str:
    if tables == 1:
        return f"{sweep}: {_count(len(rows), 'run')}"
    fingerprint = rows[0].eval_fingerprint
    return f"{sweep}: held-out rows {fingerprint[:8] if fingerprint else 'unknown'} ({index + 1} of {tables})"


def rows_table(rows: Sequence[Row], title: str) -> Table:
    names = list(dict.fromkeys(name for row in rows for name in row.params))
    table = Table(box=None, pad_edge=False, title=title, title_justify="left", title_style="bold")
    whole = {"run": max(len(row.key) for row in rows), "status": max(len(row.status) for row in rows)}
    rented = _rented(rows)
    for heading in ("", "run", *names, "eval loss", "best", "first", "steps", "seconds", *rented, "status"):
        left = heading in ("", "run", "status")
        table.add_column(heading, justify="left" if left else "right", min_width=whole.get(heading, 1), no_wrap=True)
    for row in rows:
        table.add_row(
            "*" if row.is_best else "",
            row.key,
            *(escape(show_value(row.params.get(name))) for name in names),
            *(_number(value, "{:.4f}") for value in (row.final, row.best, row.first)),
            _steps(row),
            _number(row.seconds, "{:.1f}"),
            *(tell(row) for tell in rented.values()),
            Text(row.status, style=status_style(row.status)),
            style="bold" if row.is_best else "",
        )
    return table


def _rented(rows: Sequence[Row]) -> dict[str, Callable[[Row], str]]:
    """The columns that tell what was rented, as far as these rows have any of it."""
    columns: dict[str, Callable[[Row], str]] = {}
    if any(row.gpu for row in rows):
        columns["gpu"] = lambda row: row.gpu or ""
    if any(row.paid_seconds is not None for row in rows):
        columns["paid s"] = lambda row: _number(row.paid_seconds, "{:.0f}")
    if any(row.dollars is not None for row in rows):
        columns["dollars"] = lambda row: "" if row.dollars is None else money(row.dollars)
    return columns


def status_style(status: str) -> str:
    """The colour of a status, whatever class of failure follows its first word."""
    return STATUS_COLOURS.get(status.split(" ")[0], "")


def _steps(row: Row) -> str:
    if row.step is None:
        return ""
    return f"{row.step}/{row.max_steps}" if row.max_steps and row.step < row.max_steps else str(row.step)


def _number(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def _with_params(runs: Sequence[PlannedRun]) -> Iterable[tuple[PlannedRun, str]]:
    params = params_of([planned.run.experiment for planned in runs])
    for planned, one in zip(runs, params, strict=True):
        yield planned, label(one) or " ".join(planned.run.experiment.overrides)


def _datasets(plan: Plan) -> str:
    """How many there are, and of how many tokenizing is still needed: only what a pending run reads."""
    wanted = {planned.run.data_key for planned in plan.pending}
    missing = sum(dataset.key in wanted and not dataset.done for dataset in plan.datasets)
    rest = f"{missing} to tokenize" if missing else "nothing to tokenize"
    return f"{_count(len(plan.datasets), 'dataset')} ({rest})"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _plan_json(plan: Plan, store: Store) -> Mapping[str, Any]:
    return {
        "sweep": plan.sweep,
        "store": str(store.root),
        "runs": [
            {
                "key": planned.run.key,
                "data_key": planned.run.data_key,
                "done": planned.done,
                "copies": planned.copies,
                "overrides": list(planned.run.experiment.overrides),
                "gpu": asdict(planned.run.experiment.gpu),
            }
            for planned in plan.runs
        ],
        "datasets": [{"key": one.key, "done": one.done, "runs": list(one.runs)} for one in plan.datasets],
        "unresolved": [asdict(found) for found in plan.unresolved],
    }
