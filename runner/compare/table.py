"""Rows as a table, on a terminal or as Markdown. Columns that do not fit a terminal are dropped and reported."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from rich.cells import cell_len
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from modal_app.store.step import FailureReason
from runner.compare.groups import Group
from runner.compare.measured import TASKS, is_of_a_task
from runner.compare.params import show_values
from runner.compare.ranking import OBJECTIVE, Metric, Row
from runner.compare.rung_reasons import why_of
from runner.compare.stars import groups_judged, groups_starred, starred
from runner.compare.verdict_types import JudgedSetting, Verdict, settings_by_run
from runner.console.cut import end_of, start_of
from runner.console.numbers import difference, loss
from runner.cost.spent import money
from runner.store.run_state import RunStatus, status_text
from runner.store.searches import RungReached

STATUS_COLOURS = {
    RunStatus.SUCCEEDED: "green",
    RunStatus.FAILED: "red",
    RunStatus.LOST: "red",
    RunStatus.BLOCKED: "red",
    RunStatus.STOPPED: "yellow",
    RunStatus.AT_RUNG: "blue",
    RunStatus.RUNNING: "cyan",
    RunStatus.PENDING: "dim",
    RunStatus.REMOVED: "dim",
}
GAP = 2
"""Columns of a terminal between two of a table."""
WIDE, LEAST = 24, 6
"""A longer value is shortened to WIDE before a column is dropped for it, and to LEAST once no more can be dropped."""


@dataclass(frozen=True, slots=True)
class Column:
    heading: str
    cells: tuple[str, ...]
    drop: int = 0
    """If there is no room, the column with the largest number is dropped first; 0 is never dropped."""
    left: bool = False
    shrinks: bool = False
    """Whether its values may be shortened: never a number, a status, or a value that people copy into a command."""
    styles: tuple[str, ...] = ()
    """Of the cells, by rich's names; empty if none has a style."""

    @property
    def width(self) -> int:
        return max(cell_len(text) for text in (self.heading, *self.cells))


def tables_of(rows: Sequence[Row]) -> list[list[Row]]:
    """One for each eval fingerprint."""
    return [list(group) for _, group in groupby(rows, key=lambda row: row.eval_fingerprint)]


def columns_of(rows: Sequence[Row], metric: Metric, verdicts: Sequence[Verdict] = ()) -> list[Column]:
    """The columns that have a value in one of these rows."""
    names = list(dict.fromkeys(name for row in rows for name in row.params))
    params = [
        # runner.compare.params orders them by importance, so the last is dropped first.
        Column(
            name,
            show_values([row.params.get(name) for row in rows]),
            drop=3 + index if index > 2 else 0,
            shrinks=True,
        )
        for index, name in enumerate(names)
    ]
    several = len({sweep for row in rows for sweep in row.sweeps}) > 1
    measured = [
        _column(rows, heading_of(Metric(name)), functools.partial(_measured, name), drop=24)
        for name in dict.fromkeys(name for row in rows for name in row.measured)
        if is_of_a_task(name) and name != metric.name
    ]
    setting_of = settings_by_run(verdicts)
    judged = [setting_of.get(row.key) for row in rows]
    rest = [
        _column(rows, heading_of(metric), lambda row: _at_the_end(row, row.final), always=True),
        *(verdict_columns(judged) if any(judged) else ()),
        *measured,
        *(_column(rows, f"rung {one.text}", functools.partial(_at_rung, one), drop=20) for one in rungs_of(rows)),
        _column(rows, "why", why_of, drop=23, left=True),
        _column(rows, "best", lambda row: _at_the_end(row, row.best), drop=26),
        _column(rows, "first", lambda row: loss(row.first), drop=32),
        _column(rows, "steps", _steps, drop=25),
        _column(rows, "tok/s", lambda row: _number(row.tokens_per_second, "{:.0f}"), drop=29),
        _column(rows, "train s", lambda row: _number(row.train_seconds, "{:.1f}"), drop=30),
        _column(rows, "seconds", lambda row: _number(row.seconds, "{:.1f}"), drop=28),
        _column(rows, "gpu", lambda row: row.gpu or "", drop=27),
        _column(rows, "paid s", lambda row: _number(row.paid_seconds, "{:.0f}"), drop=31),
        _column(rows, "dollars", lambda row: "" if row.dollars is None else money(row.dollars), drop=1),
        _column(rows, "peak GiB", lambda row: _number(row.peak_memory_gib, "{:.1f}"), drop=33),
        _column(rows, "tries", lambda row: str(row.attempts) if (row.attempts or 0) > 1 else "", drop=34),
        _column(rows, "sweep", lambda row: " ".join(row.sweeps) if several else "", drop=35, left=True),
        _column(rows, "flags", lambda row: " ".join(row.flags), drop=2, left=True),
        status_column([(row.status, row.reason, row.rung or 0) for row in rows]),
    ]
    mark = Column("", tuple("*" if star else "" for star in starred(rows, verdicts)), left=True)
    run = Column("run", tuple(row.key for row in rows), left=True)
    return [mark, run, *params, *(one for one in rest if one is not None)]


def verdict_columns(settings: Sequence[JudgedSetting | None]) -> list[Column]:
    """How much worse than the best setting of its table, and the interval of that."""
    differences = tuple("" if one is None else difference(one.difference) for one in settings)
    ranges = tuple("" if one is None or one.low == one.high else interval(one) for one in settings)
    return [Column("difference", differences, drop=21), Column("95 % interval", ranges, drop=22)]


@dataclass(frozen=True, slots=True)
class RungColumn:
    """A rung that runs have reached."""

    rung: int
    step: int | None
    """None if all of them have this rung at the same step."""

    @property
    def text(self) -> str:
        return str(self.rung) if self.step is None else f"{self.rung}, step {self.step}"

    def of(self, row: Row) -> RungReached | None:
        return next((one for one in row.rungs if one.rung == self.rung and self.step in (None, one.step)), None)


def rungs_of(rows: Iterable[Row]) -> list[RungColumn]:
    """Those that one of these runs has reached. Where searches have a rung at different steps, their losses there do
    not compare, so each step is one by itself."""
    steps: dict[int, set[int]] = {}
    for one in (one for row in rows for one in row.rungs):
        steps.setdefault(one.rung, set()).update([one.step] if one.step else [])  # a NaN may come before any step
    found = {rung: sorted(there) if len(there) > 1 else [None] for rung, there in sorted(steps.items())}
    return [RungColumn(rung, step) for rung, there in found.items() for step in there]


def status_column(states: Iterable[tuple[RunStatus, FailureReason | None, int]]) -> Column:
    found = list(states)
    cells = tuple(status_text(*one) for one in found)
    return Column("status", cells, left=True, styles=tuple(STATUS_COLOURS[status] for status, *_ in found))


def group_columns(groups: Sequence[Group], metric: Metric, verdicts: Sequence[Verdict] = ()) -> list[Column]:
    names = list(dict.fromkeys(name for group in groups for name in group.params))
    judged = groups_judged(groups, verdicts)
    return [
        Column("", tuple("*" if star else "" for star in groups_starred(groups, verdicts)), left=True),
        *(Column(name, show_values([one.params.get(name) for one in groups]), shrinks=True) for name in names),
        Column(f"mean {heading_of(metric)}", tuple(loss(one.mean) for one in groups)),
        *(verdict_columns(judged) if any(judged) else ()),
        Column("sd", tuple(loss(one.sd) for one in groups)),
        Column("n", tuple(f"{one.n}/{len(one.runs)}" if one.n < len(one.runs) else str(one.n) for one in groups)),
        Column("best", tuple(loss(one.best) for one in groups)),
        *(
            [Column("diverged", tuple(str(one.diverged or "") for one in groups))]
            if any(one.diverged for one in groups)
            else []
        ),
    ]


def fitted(columns: Sequence[Column], width: int) -> tuple[list[Column], list[str]]:
    """The columns that fit into this width of a terminal, and the headings of those that do not.

    Wide values are shortened. If that is not enough, the table is wider than the terminal.
    """
    fitting, dropped = list(columns), list[str]()
    while _width(shortened(fitting, width, WIDE)) > width and any(one.drop for one in fitting):
        worst = max(fitting, key=lambda one: one.drop)
        fitting.remove(worst)
        dropped.append(worst.heading)
    return shortened(fitting, width), dropped


def not_shown(dropped: Iterable[str]) -> str:
    """A sentence for rich, about the columns that `fitted` has dropped. A heading such as "first" is quoted."""
    return f"Columns not shown: {escape(', '.join(f'`{heading}`' for heading in dropped))}."


def shortened(columns: Sequence[Column], width: int, least: int = LEAST) -> list[Column]:
    """The same columns. The widest that may shrink is narrowed until all fit, or none is wider than `least`."""
    widths = [one.width for one in columns]
    free = [place for place, one in enumerate(columns) if one.shrinks]
    over = sum(widths) + GAP * (len(columns) - 1) - width
    while over > 0 and free and max(widths[place] for place in free) > least:
        widths[max(free, key=lambda place: widths[place])] -= 1
        over -= 1
    return [
        one if one.width <= room else
        replace(one, heading=start_of(one.heading, room), cells=tuple(end_of(cell, room) for cell in one.cells))
        for one, room in zip(columns, widths, strict=True)
    ]  # fmt: skip


def table(columns: Sequence[Column], title: str, bold: Sequence[bool]) -> Table:
    """As wide as its columns, whatever the terminal: rich would narrow every column, the mark of the best run first."""
    drawn = Table(box=None, pad_edge=False, title=escape(title), title_justify="left", title_style="bold")
    drawn.width = _width(columns)
    for one in columns:
        drawn.add_column(escape(one.heading), justify="left" if one.left else "right", width=one.width, no_wrap=True)
    for number, is_best in enumerate(bold):
        drawn.add_row(
            *(Text(one.cells[number], style=one.styles[number] if one.styles else "") for one in columns),
            style="bold" if is_best else "",
        )
    return drawn


def markdown(columns: Sequence[Column]) -> str:
    """A Markdown table, as GitHub renders it."""
    lines = [[one.heading for one in columns], ["---" if one.left else "---:" for one in columns]]
    lines += [list(cells) for cells in zip(*(one.cells for one in columns), strict=True)]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def heading_of(metric: Metric) -> str:
    return "eval loss" if metric.name == OBJECTIVE else metric.name.removeprefix(TASKS)


def _column(
    rows: Iterable[Row], heading: str, cell_of: Callable[[Row], str], *, drop: int = 0, left: bool = False,
    always: bool = False,
) -> Column | None:  # fmt: skip
    cells = tuple(cell_of(row) for row in rows)
    return Column(heading, cells, drop, left) if always or any(cells) else None


def _width(columns: Sequence[Column]) -> int:
    return sum(one.width for one in columns) + GAP * (len(columns) - 1)


def interval(one: JudgedSetting) -> str:
    """The interval of its difference from the best setting: `0.0003 to 0.0021`."""
    return f"{difference(one.low)} to {difference(one.high)}"


def _steps(row: Row) -> str:
    if row.step is None:
        return ""
    return f"{row.step}/{row.max_steps}" if row.max_steps and row.step < row.max_steps else str(row.step)


def _at_the_end(row: Row, value: float | None) -> str:
    """Nothing for a run that has stopped at a rung: its losses compare at the rungs only."""
    return "" if row.status is RunStatus.AT_RUNG else loss(value)


def _at_rung(column: RungColumn, row: Row) -> str:
    there = column.of(row)
    return "" if there is None else "diverged" if there.loss is None else loss(there.loss)


def _measured(name: str, row: Row) -> str:
    return loss(row.measured.get(name))


def _number(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)
