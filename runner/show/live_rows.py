"""The rows of the live view: what each shows, and what a narrow terminal leaves out. Pure.

Values that distinguish two runs are never cut: other columns go first, then parameters that are not needed to
distinguish runs.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich.cells import cell_len
from rich.text import Text

from modal_app.store.step import StepKind
from runner.compare.table import STATUS_COLOURS
from runner.console.cut import end_of, start_of
from runner.console.durations import about, clock
from runner.show.fit import narrowest, one_line, shortened, texts_of
from runner.show.headway import FAILED, ExpectedSeconds, Timing, run_left
from runner.show.line import Line
from runner.store.run_state import RunStatus

GAP = "  "
RUNG = "rung"
BAR = ""
"""The heading of the rows' bars."""
ROW_BAR = 10
LEAST_HEADING = 4
LEAST_MESSAGE = 10
LONG_VALUE, SHORT_VALUE = 24, 14


@dataclass(frozen=True, slots=True)
class Marks:
    """The characters that a terminal's encoding has."""

    done: str
    rest: str
    ellipsis: str
    statuses: dict[RunStatus, str]
    encoding: str = "utf-8"

    def of(self, status: RunStatus) -> str:
        return self.statuses.get(status, self.statuses[RunStatus.FAILED] if status in FAILED else " ")


UNICODE = Marks(
    "━",
    "─",
    "…",
    {RunStatus.RUNNING: "▸", RunStatus.SUCCEEDED: "✓", RunStatus.AT_RUNG: "▪", RunStatus.FAILED: "✗"},
)
ASCII = Marks(
    "#",
    "-",
    "~",
    {RunStatus.RUNNING: ">", RunStatus.SUCCEEDED: "+", RunStatus.AT_RUNG: "=", RunStatus.FAILED: "x"},
)


@dataclass(frozen=True)
class _Column:
    heading: str
    cells: tuple[str, ...]
    left: bool = False
    shortened_heading: str | None = None

    @property
    def head(self) -> str:
        return self.heading if self.shortened_heading is None else self.shortened_heading

    @functools.cached_property
    def width(self) -> int:
        return max(cell_len(one) for one in (self.head, *self.cells))


@dataclass(frozen=True)
class _Table:
    lines: tuple[Line, ...]
    names: tuple[_Column, ...]
    """What tells the runs apart."""
    labels: tuple[str, ...]
    """Of the lines without parameters, in the place of `names`; empty for the others."""
    rest: tuple[_Column, ...]
    kinds: _Column | None
    marks: Marks

    @functools.cached_property
    def names_width(self) -> int:
        columns = sum(one.width for one in self.names) + len(GAP) * max(len(self.names) - 1, 0)
        return max([columns, *map(cell_len, self.labels)])

    @functools.cached_property
    def width(self) -> int:
        columns = [one.width for one in ([self.kinds] if self.kinds else []) + list(self.rest)]
        return 1 + len(GAP) + self.names_width + sum(one + len(GAP) for one in columns)


def bar(part: float, width: int, marks: Marks) -> str:
    """A bar of this width. It is full only when all is done."""
    full = width if part >= 1 else min(int(part * width), width - 1)
    return marks.done * full + marks.rest * (width - full)


def rows(
    shown: Sequence[Line],
    every: Sequence[Line],
    width: int,
    *,
    now: float,
    marks: Marks,
    expected: ExpectedSeconds | None,
) -> list[Text]:
    """The headings, and a line for each of `shown`, at most `width` wide. `every`: all lines, from which these have to
    differ. So columns stay where they are when the terminal shows other lines."""
    return _drawn(_fitted(_table(every, expected, now, marks), width), shown, width)


def _table(lines: Sequence[Line], expected: ExpectedSeconds | None, now: float, marks: Marks) -> _Table:
    names = list(dict.fromkeys(name for line in lines for name in line.params))
    timings: dict[StepKind, list[Timing]] = {}
    for line in lines:
        timings.setdefault(line.kind, []).extend([line.timing] if line.timing else [])

    def left(line: Line) -> str:
        seconds = run_left(line.timing, timings[line.kind], expected, now) if line.timing else None
        return "" if seconds is None else about(seconds).replace("about ", "").replace("under ", "<")

    def time_of(line: Line) -> str:
        seconds = None if line.timing and line.timing.before else line.seconds(now)
        return "" if seconds is None else clock(seconds)

    def drawn(line: Line) -> str:
        going_on = line.status is RunStatus.RUNNING and line.timing is not None and line.timing.part > 0
        return bar(line.timing.part, ROW_BAR, marks) if going_on and line.timing else ""

    columns = [
        _Column(BAR, tuple(map(drawn, lines)), left=True),
        _Column("step", tuple(one_line(line.step or line.counted, marks.encoding) for line in lines)),
        _Column("loss", tuple(_number(line.loss) for line in lines)),
        _Column("eval loss", tuple(_number(line.eval_loss) for line in lines)),
        _Column("time", tuple(map(time_of, lines))),
        _Column("left", tuple(map(left, lines))),
        _Column("dollars", tuple(line.price for line in lines)),
        _Column("status", tuple(line.status_text for line in lines), left=True),
        _Column(RUNG, tuple(line.at_rung for line in lines), left=True),
    ]
    kinds = _Column("", tuple(line.kind for line in lines), left=True)
    return _Table(
        tuple(lines),
        tuple(
            _Column(one_line(name, marks.encoding), texts_of([line.params.get(name) for line in lines], marks.encoding))
            for name in names
        ),
        tuple("" if line.params else one_line(line.label, marks.encoding) for line in lines),
        tuple(one for one in columns if any(one.cells)),
        kinds if len(set(kinds.cells)) > 1 else None,
        marks,
    )


def _fitted(table: _Table, width: int) -> _Table:
    """The table with what it gives up for this width, the least important first."""
    for smaller in (
        lambda one: _without(one, BAR),
        lambda one: _without(one, RUNG),
        lambda one: _without(one, "status"),
        lambda one: _with_short_headings(one, width),
        lambda one: _without(one, "dollars"),
        lambda one: _without(one, "loss"),
        lambda one: _with_short_values(one, width, LONG_VALUE),
        lambda one: _without(one, "time"),
        lambda one: _with_short_values(one, width, SHORT_VALUE),
        lambda one: _without(one, "left"),
        lambda one: _without(one, "eval loss"),
        lambda one: _with_short_values(one, width, 1),
        lambda one: replace(one, kinds=None),
        lambda one: _without(one, "step"),
        lambda one: _with_fewer_names(one, width),
        _with_keys,
    ):
        if table.width <= width:
            break
        table = smaller(table)
    return _with_short_headings(table, width)


def _without(table: _Table, heading: str) -> _Table:
    return replace(table, rest=tuple(one for one in table.rest if one.heading != heading))


def _with_short_headings(table: _Table, width: int) -> _Table:
    """Headings as wide as the room allows, but not narrower than their values."""
    ellipsis = table.marks.ellipsis
    table = replace(table, names=tuple(replace(one, shortened_heading=None) for one in table.names))
    over = table.width - width
    least = [max([LEAST_HEADING, *map(cell_len, one.cells)]) for one in table.names]
    wide = [one.width for one in table.names]
    while over > 0 and any(now > low for now, low in zip(wide, least, strict=True)):
        widest = max(range(len(wide)), key=lambda place: wide[place] - least[place])
        wide[widest], over = wide[widest] - 1, over - 1

    def short(heading: str, room: int) -> str:
        own = heading if cell_len(heading) <= room else heading.rpartition(".")[2]
        alike = [one for one in table.names if one.heading[: room - 1] == heading[: room - 1]]
        return (end_of if len(alike) > 1 else start_of)(own, room, ellipsis)

    pairs = zip(table.names, wide, strict=True)
    return replace(table, names=tuple(replace(one, shortened_heading=short(one.heading, room)) for one, room in pairs))


def _with_short_values(table: _Table, width: int, least: int) -> _Table:
    """Values and labels shortened to `least`, if the runs still differ in them."""
    ellipsis = table.marks.ellipsis
    # Headings follow the values, as far as there is room in the end.
    bare = tuple(replace(one, shortened_heading=start_of(one.heading, LEAST_HEADING, "")) for one in table.names)
    table = replace(table, names=bare)
    while table.width > width:
        over = table.width - width
        rooms = [max(narrowest(one.cells, ellipsis), least, LEAST_HEADING) for one in table.names]
        spare = [one.width - room for one, room in zip(table.names, rooms, strict=True)]
        own = [label for label in table.labels if label]
        needed = max(narrowest(own, ellipsis), least) if own else 0
        widest = max(range(len(spare)), key=lambda place: spare[place], default=None)
        columns = _Table(table.lines, table.names, (), (), None, table.marks).names_width if table.names else 0
        if own and max(map(cell_len, own)) >= columns and table.names_width > max(needed, columns):
            room = max(table.names_width - over, needed, columns)
            cut = iter(shortened(own, room, ellipsis) or own)
            table = replace(table, labels=tuple(next(cut) if label else "" for label in table.labels))
        elif widest is not None and spare[widest] > 0:
            one = table.names[widest]
            room = max(one.width - over, rooms[widest])
            cells = shortened(one.cells, room, ellipsis) or one.cells
            names = (*table.names[:widest], replace(one, cells=cells), *table.names[widest + 1 :])
            table = replace(table, names=names)
        else:
            break
    return table


def _with_fewer_names(table: _Table, width: int) -> _Table:
    """The table without the parameters that are not needed to distinguish the runs, the last removed first."""
    for column in reversed(table.names):
        rest = tuple(one for one in table.names if one is not column)
        distinct = len(set(zip(*(one.cells for one in table.names), strict=True)))
        if table.width > width and rest and len(set(zip(*(one.cells for one in rest), strict=True))) == distinct:
            table = replace(table, names=rest)
    return table


def _with_keys(table: _Table) -> _Table:
    """The runs by their keys, which `logs` and `cancel` take."""
    keys = _Column("run", tuple(line.key.partition("/")[0][:12] for line in table.lines), left=True)
    return replace(table, names=(keys,), labels=tuple("" for _ in table.lines))


def _drawn(table: _Table, shown: Sequence[Line], width: int) -> list[Text]:
    place = {id(line): number for number, line in enumerate(table.lines)}
    heads = [*([("", table.kinds.width, True)] if table.kinds else [])]
    names = GAP.join(_aligned(one.head, one) for one in table.names)
    rest = "".join(f"{GAP}{_aligned(one.head, one)}" for one in table.rest)
    kinds = "".join(f"{' ' * wide}{GAP}" for _, wide, _ in heads)
    heading = f" {GAP}{kinds}{_padded(names, table.names_width)}{rest}"
    top = [Text(start_of(heading.rstrip(), width, table.marks.ellipsis), style="bold")] if heading.strip() else []
    return [*top, *(_row(table, place[id(line)], width) for line in shown)]


def _row(table: _Table, number: int, width: int) -> Text:
    line, ellipsis = table.lines[number], table.marks.ellipsis
    kind = f"{_aligned(table.kinds.cells[number], table.kinds)}{GAP}" if table.kinds else ""
    own = GAP.join(_aligned(one.cells[number], one) for one in table.names)
    name = _padded(table.labels[number] or own, table.names_width)
    before = f"{table.marks.of(line.status)}{GAP}{kind}{name}"
    message = one_line(line.message, table.marks.encoding)
    if message and line.status is not RunStatus.RUNNING:
        known = "" if line.status is RunStatus.SUCCEEDED else f"{line.status_text}: "
        text = f"{before}{GAP}{known}{message}"
    elif line.status in FAILED or line.status is RunStatus.REMOVED:
        text = f"{before}{GAP}{line.status_text}"
    else:
        cells = "".join(f"{GAP}{_aligned(one.cells[number], one)}" for one in table.rest)
        room = width - cell_len(before) - cell_len(cells) - len(GAP)
        text = f"{before}{cells}{GAP}{start_of(message, room, ellipsis)}" if room >= LEAST_MESSAGE else before + cells
    cut = start_of(text.rstrip(), width, ellipsis)
    # In a very narrow terminal, the end of a name says more than its beginning.
    return Text(cut if cell_len(before) <= width else end_of(before, width, ellipsis), STATUS_COLOURS[line.status])


def _aligned(text: str, column: _Column) -> str:
    space = " " * (column.width - cell_len(text))
    return f"{text}{space}" if column.left else f"{space}{text}"


def _padded(text: str, width: int) -> str:
    return text + " " * (width - cell_len(text))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
