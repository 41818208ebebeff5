"""The live view of a sweep -> the lines of a terminal of a given size. Pure.

Each step has one line. Running ones come first, then failed ones, then the newest finished ones, then those that
stopped at a rung.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.text import Text

from runner.console.cut import start_of
from runner.show.headway import ExpectedSeconds, Headway
from runner.show.line import Line
from runner.show.live_rows import GAP, UNICODE, Marks, bar, rows
from runner.store.run_state import RunStatus, status_text

LEAST_BAR, MOST_BAR = 10, 40


@dataclass(frozen=True, slots=True)
class Size:
    width: int
    height: int


def screen(
    lines: Sequence[Line], headway: Headway, size: Size, *, now: float, marks: Marks = UNICODE,
    expected: ExpectedSeconds | None = None,
) -> list[Text]:  # fmt: skip
    """At most `size.height` lines, each at most `size.width` wide."""
    head = [*_counted(headway, size.width, marks), Text(start_of(headway.timed, size.width, marks.ellipsis))]
    ordered = in_order(lines)
    if not ordered:
        return head[: size.height]
    room = max(size.height - len(head) - 1, 2)  # without the headings
    shown, hidden = (ordered, []) if len(ordered) <= room else (ordered[: room - 1], ordered[room - 1 :])
    drawn = rows(shown, ordered, size.width, now=now, marks=marks, expected=expected)
    more = [Text(start_of(_hidden(hidden), size.width, marks.ellipsis), style="dim")] if hidden else []
    return [*head, *drawn, *more][: size.height]


def in_order(lines: Sequence[Line]) -> list[Line]:
    """Running, failed, finished, stopped at a rung (these three newest first), then what waits."""

    def place(line: Line) -> tuple[int, float]:
        ended = line.timing.ended_at if line.timing and line.timing.ended_at else 0.0
        match line.status:
            case RunStatus.RUNNING:
                return 0, 0.0
            case RunStatus.SUCCEEDED:
                return 2, -ended
            case RunStatus.AT_RUNG:
                return 3, -ended
            case RunStatus.PENDING:
                return 4, 0.0
            case _:
                return 1, -ended

    return sorted(lines, key=place)


def _counted(headway: Headway, width: int, marks: Marks) -> list[Text]:
    """The counts and the bar, on one line if there is room."""
    counted, percent = headway.counted, f" {int(headway.part * 100):>3} %"
    room = width - cell_len(counted) - len(GAP) - len(percent)
    if room >= LEAST_BAR:
        return [_barred(f"{counted}{GAP}", headway.part, min(room, MOST_BAR), percent, marks)]
    own = min(max(width - len(percent), 1), MOST_BAR)
    return [Text(start_of(counted, width, marks.ellipsis), style="bold"),
            _barred("", headway.part, own, percent, marks)]  # fmt: skip


def _barred(before: str, part: float, width: int, after: str, marks: Marks) -> Text:
    drawn = bar(part, width, marks)
    full = drawn.rstrip(marks.rest)
    return Text.assemble((before, "bold"), (full, "green"), (drawn[len(full) :], "dim"), after)


def _hidden(lines: Sequence[Line]) -> str:
    counts = Counter(
        "waiting" if one.status is RunStatus.PENDING else status_text(one.status, None, one.rung) for one in lines
    )
    return f"and {', '.join(f'{number} {status}' for status, number in counts.items())}"
