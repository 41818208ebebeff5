"""Print a comparison: as tables for people, and as --json, --csv and --md."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from rich.console import Console
from rich.markup import escape

from runner.compare.best import best_line
from runner.compare.comparison import Comparison, SweepSelection, cost_of, model_of
from runner.compare.csv_form import groups_csv, rows_csv
from runner.compare.groups import Group
from runner.compare.measured import is_of_a_task
from runner.compare.ranking import Metric, Row
from runner.compare.stars import groups_starred, starred
from runner.compare.table import (
    Column,
    columns_of,
    fitted,
    group_columns,
    markdown,
    not_shown,
    shortened,
    table,
    tables_of,
)
from runner.compare.verdict_types import Verdict
from runner.console import terminal
from runner.console.numbers import counted
from runner.console.print_json import print_json
from runner.cost.spent import money
from runner.store.ledger import Ledger
from runner.store.run_state import RunStatus, status_text

SEVERAL_TABLES = "These runs are evaluated on different held-out rows, so their losses cannot be compared."
KEEP_THE_ROWS = "With data.seed=42, all runs of a sweep over seed have the same rows."
ONE_SEED = (
    "Settings that were trained with several seeds are ranked by their mean. The best one was trained with one seed, "
    "so chance may have favoured it."
)
OTHER_QUESTIONS = (
    "These runs were not all given the same questions: the task's files have changed, or some runs were not evaluated. "
    "`axosweep eval` of the sweep evaluates the rest."
)


class Form(StrEnum):
    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    MARKDOWN = "md"


def show(result: Comparison, selections: Sequence[SweepSelection], form: Form, console: Console | None = None) -> None:
    """Machine-readable forms go to stdout, tables for people to `console`."""
    metric = Metric(result.metric, result.maximize)
    match form:
        case Form.JSON:
            print_json(result)
        case Form.CSV:
            groups, rows = result.groups, result.runs
            csv = (
                groups_csv(groups, metric, result.verdicts) if result.over else rows_csv(rows, metric, result.verdicts)
            )
            terminal.write(csv)
        case Form.MARKDOWN:
            terminal.write(f"{_markdown(result, metric)}\n")
        case Form.TABLE:
            _show(result, selections, metric, console or terminal.results())


def cost_lines(selections: Sequence[SweepSelection], rows: Sequence[Row]) -> list[str]:
    """The dollars of the sweeps, for people; empty if there is no price."""
    going_on = any(row.status in (RunStatus.RUNNING, RunStatus.PENDING) for row in rows)
    complete = [one for one in selections if one.only is None]
    costs = [(one.sweep, cost) for one in complete if (cost := cost_of(one.store, one.sweep))]
    if len(selections) == 1:
        return [line for _, cost in costs for line in cost.lines(going_on=going_on)]
    return [f"{sweep}: {money(cost.bill.dollars)}" for sweep, cost in costs]


def title_of(result: Comparison, rows: Sequence[Row] | Sequence[Group], number: int, tables: int) -> str:
    name = result.sweep or (f"{len(result.sweeps)} sweeps" if result.sweeps else "runs")
    if tables == 1:
        count = sum(len(one.runs) if isinstance(one, Group) else 1 for one in rows)
        runs = counted(count, "run")
        return f"{name}: {runs}" if name != "runs" else runs
    fingerprint = rows[0].eval_fingerprint
    if is_of_a_task(result.metric):
        rows_text = f"questions {fingerprint[:8]}" if fingerprint else "not measured"
    else:
        rows_text = _held_out(fingerprint)
    return f"{name}: {rows_text} ({number} of {tables})"


def _show(result: Comparison, selections: Sequence[SweepSelection], metric: Metric, console: Console) -> None:
    console.print()
    tables = tables_of(result.runs)
    dropped: dict[str, None] = {}
    for number, rows in enumerate(tables, start=1):
        shown, left_out = fitted(columns_of(rows, metric, result.verdicts), console.width)
        dropped.update(dict.fromkeys(left_out))
        title = title_of(result, rows, number, len(tables))
        console.print(table(shown, title, starred(rows, result.verdicts)), crop=False)
    _show_groups(result, metric, console)
    if dropped:
        console.print(f"{not_shown(dropped)} Use a wider terminal or `axosweep compare --csv` to see them.")
    for line in cost_lines(selections, result.runs):
        terminal.say(console, line)
    for row in result.runs:
        if row.message and row.status is not RunStatus.AT_RUNG:
            status = status_text(row.status, row.reason, row.rung or 0)
            console.print(f"[red]{row.key} {status}[/red]: {escape(row.message)}", soft_wrap=True)
            for line in row.advice:
                console.print(f"  {escape(line)}", soft_wrap=True)
            if row.log:
                console.print(f"  log: {escape(row.log)}", soft_wrap=True)
    for note in _notes(result, len(tables)):
        terminal.say(console, note)
    _show_best(result, len(tables), console)
    sweeps = {(one.store.root, one.sweep): one for one in selections}  # several runs of one sweep may be named
    for one in sweeps.values():
        if note := Ledger(one.store, one.sweep).plan().note:
            terminal.say(console, f"Note{f' of {one.sweep}' if len(sweeps) > 1 else ''}: {note}")
        where = f"runs/<run>, prepared/<data>, sweeps/{one.sweep}"
        console.print(f"Everything: {escape(str(one.store.root))} ({escape(where)})", soft_wrap=True)


def _show_groups(result: Comparison, metric: Metric, console: Console) -> None:
    tables = _mean_tables(result.groups)
    for number, groups in enumerate(tables, start=1):
        which = f"; {title_of(result, groups, number, len(tables))}" if len(tables) > 1 else ""
        title = f"Mean over {', '.join(result.over)}{which}"
        console.print()
        columns = shortened(group_columns(groups, metric, result.verdicts), console.width)
        console.print(table(columns, title, groups_starred(groups, result.verdicts)), crop=False)


def _mean_tables(groups: Sequence[Group]) -> list[list[Group]]:
    """One for each eval fingerprint; none if every run has its own held-out rows, which a note explains."""
    if all(len(one.runs) == 1 for one in groups):
        return []
    found: dict[str | None, list[Group]] = {}
    for one in groups:
        found.setdefault(one.eval_fingerprint, []).append(one)
    return list(found.values())


def _notes(result: Comparison, tables: int) -> list[str]:
    notes = []
    if tables > 1:
        notes.append(OTHER_QUESTIONS if is_of_a_task(result.metric) else SEVERAL_TABLES)
        if not is_of_a_task(result.metric) and any("seed" in row.params for row in result.runs):
            notes.append(KEEP_THE_ROWS)
    best = next((row for row in result.runs if row.is_best), None)
    if tables == 1 and best and best.over_seeds is None and any(row.over_seeds for row in result.runs):
        notes.append(ONE_SEED)
    return [*notes, *result.notes, *_verdict_lines(result.verdicts, tables)]


def _verdict_lines(verdicts: Sequence[Verdict], tables: int) -> list[str]:
    if tables == 1:
        return [line for one in verdicts for line in one.sentences]
    return [f"{_held_out(one.eval_fingerprint)}: {' '.join(one.sentences)}" for one in verdicts]


def _held_out(fingerprint: str | None) -> str:
    return f"held-out rows {fingerprint[:8] if fingerprint else 'unknown'}"


def _show_best(result: Comparison, tables: int, console: Console) -> None:
    """Only if there is one table, since there is no best across tables; with groups, their table has the best mean."""
    best = next((row for row in result.runs if row.is_best), None)
    if best is None or tables > 1 or result.over:
        return
    console.print(escape(best_line(best, result.verdicts)), soft_wrap=True)
    if best.store is None:
        return
    what, where = model_of(best)
    console.print(f"Its {what}: {escape(where)}", soft_wrap=True)


def _markdown(result: Comparison, metric: Metric) -> str:
    if result.over:
        groups = _mean_tables(result.groups)
        parts = [
            _titled(title_of(result, ones, number, len(groups)), group_columns(ones, metric, result.verdicts))
            for number, ones in enumerate(groups, start=1)
        ]
    else:
        tables = tables_of(result.runs)
        parts = [
            _titled(title_of(result, rows, number, len(tables)), columns_of(rows, metric, result.verdicts))
            for number, rows in enumerate(tables, start=1)
        ]
    return "\n\n".join([*parts, *_notes(result, len(parts))])


def _titled(title: str, columns: Sequence[Column]) -> str:
    return f"**{title}**\n\n{markdown(columns)}"
