"""A comparison as people read it, and as --json, --csv and --md print it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from enum import StrEnum

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from runner.compare.comparison import Comparison, SweepSelection, cost_of, model_of
from runner.compare.groups import Group
from runner.compare.measured import is_of_a_task
from runner.compare.params import label
from runner.compare.ranking import Metric, Row
from runner.compare.table import (
    columns_of,
    fitted,
    group_columns,
    groups_csv,
    markdown,
    rows_csv,
    shortened,
    table,
    tables_of,
)
from runner.console import terminal
from runner.console.print_json import print_json
from runner.cost.spent import money
from runner.store.run_state import RunStatus, status_text

SEVERAL_TABLES = (
    "These runs are judged by different held-out rows: their losses do not compare. A sweep over seed keeps the rows "
    "with data.seed=N."
)
OTHER_QUESTIONS = (
    "These runs were not all asked the same: the task's files have changed, or some were not asked. `axosweep eval` of "
    "the sweep asks the rest."
)


class Form(StrEnum):
    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    MARKDOWN = "md"


def show(made: Comparison, asked: Sequence[SweepSelection], form: Form, console: Console | None = None) -> None:
    """Results go to stdout; a table that is for people, to `console`."""
    metric = Metric(made.metric, made.maximize)
    match form:
        case Form.JSON:
            print_json(asdict(made))
        case Form.CSV:
            sys.stdout.write(groups_csv(made.groups, metric) if made.over else rows_csv(made.runs, metric))
        case Form.MARKDOWN:
            print(_markdown(made, metric))
        case Form.TABLE:
            _show(made, asked, metric, console or terminal.results())


def rows_table(rows: Sequence[Row], title: str, width: int | None = None) -> Table:
    """The rows of one eval fingerprint; with a width, without the columns that it has no room for."""
    columns = columns_of(rows, Metric())
    kept, _ = fitted(columns, width) if width else (columns, [])
    return table(kept, title, [row.is_best for row in rows])


def cost_lines(asked: Sequence[SweepSelection], rows: Sequence[Row]) -> list[str]:
    """The dollars of the sweeps for people; nothing where there is no price."""
    going_on = any(row.status in (RunStatus.RUNNING, RunStatus.PENDING) for row in rows)
    whole = [one for one in asked if one.only is None]
    costs = [(one.sweep, cost) for one in whole if (cost := cost_of(one.store, one.sweep))]
    if len(asked) == 1:
        return [line for _, cost in costs for line in cost.lines(going_on=going_on)]
    return [f"{sweep}: {money(cost.whole.dollars)}" for sweep, cost in costs]


def title_of(made: Comparison, rows: Sequence[Row] | Sequence[Group], number: int, tables: int) -> str:
    name = made.sweep or (f"{len(made.sweeps)} sweeps" if made.sweeps else "runs")
    if tables == 1:
        count = sum(len(one.runs) if isinstance(one, Group) else 1 for one in rows)
        return f"{name}: {count} run{'' if count == 1 else 's'}" if name != "runs" else f"{count} runs"
    fingerprint = rows[0].eval_fingerprint
    if is_of_a_task(made.metric):
        said = f"questions {fingerprint[:8]}" if fingerprint else "not measured"
    else:
        said = f"held-out rows {fingerprint[:8] if fingerprint else 'unknown'}"
    return f"{name}: {said} ({number} of {tables})"


def _show(made: Comparison, asked: Sequence[SweepSelection], metric: Metric, console: Console) -> None:
    console.print()
    tables = tables_of(made.runs)
    dropped: dict[str, None] = {}
    for number, rows in enumerate(tables, start=1):
        kept, left_out = fitted(columns_of(rows, metric), console.width)
        dropped.update(dict.fromkeys(left_out))
        console.print(table(kept, title_of(made, rows, number, len(tables)), [row.is_best for row in rows]), crop=False)
    _show_groups(made, metric, console)
    if dropped:
        console.print(f"No room for {escape(', '.join(dropped))}: --json, --csv and a wider terminal have all.")
    for line in cost_lines(asked, made.runs):
        terminal.say(console, line)
    for row in made.runs:
        if row.message:
            status = status_text(row.status, row.reason)
            console.print(f"[red]{row.key} {status}[/red]: {escape(row.message)}", soft_wrap=True)
            if row.log:
                console.print(f"  log: {escape(row.log)}", soft_wrap=True)
    for note in _notes(made, len(tables)):
        terminal.say(console, note)
    _show_best(made, len(tables), console)
    for one in asked:
        where = f"runs/<run>, prepared/<data>, sweeps/{one.sweep}"
        console.print(f"Everything: {escape(str(one.store.root))} ({escape(where)})", soft_wrap=True)


def _show_groups(made: Comparison, metric: Metric, console: Console) -> None:
    tables = _mean_tables(made.groups)
    for number, groups in enumerate(tables, start=1):
        which = f"; {title_of(made, groups, number, len(tables))}" if len(tables) > 1 else ""
        title = f"Mean over {', '.join(made.over)}{which}"
        console.print()
        columns = shortened(group_columns(groups, metric), console.width)
        console.print(table(columns, title, [one.is_best for one in groups]), crop=False)


def _mean_tables(groups: Sequence[Group]) -> list[list[Group]]:
    """One for each eval fingerprint; none where held-out rows keep every run apart: a note says that."""
    if all(len(one.runs) == 1 for one in groups):
        return []
    found: dict[str | None, list[Group]] = {}
    for one in groups:
        found.setdefault(one.eval_fingerprint, []).append(one)
    return list(found.values())


def _notes(made: Comparison, tables: int) -> list[str]:
    several = OTHER_QUESTIONS if is_of_a_task(made.metric) else SEVERAL_TABLES
    return [*([several] if tables > 1 else []), *made.notes]


def _show_best(made: Comparison, tables: int, console: Console) -> None:
    """Of all of them, so only where there is one table; with groups, the best mean is in theirs."""
    best = next((row for row in made.runs if row.is_best), None)
    if best is None or tables > 1 or made.over:
        return
    console.print(f"Best: {best.key}  {escape(label(best.params))}".rstrip(), soft_wrap=True)
    if best.store is None:
        return
    what, where = model_of(best)
    console.print(f"Its {what}: {escape(where)}", soft_wrap=True)


def _markdown(made: Comparison, metric: Metric) -> str:
    if made.over:
        groups = _mean_tables(made.groups)
        parts = [
            f"**{title_of(made, ones, number, len(groups))}**\n\n{markdown(group_columns(ones, metric))}"
            for number, ones in enumerate(groups, start=1)
        ]
    else:
        tables = tables_of(made.runs)
        parts = [
            f"**{title_of(made, rows, number, len(tables))}**\n\n{markdown(columns_of(rows, metric))}"
            for number, rows in enumerate(tables, start=1)
        ]
    return "\n\n".join([*parts, *_notes(made, len(parts))])
