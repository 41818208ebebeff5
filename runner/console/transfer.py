"""The progress of a transfer, or of other work that can be counted: a bar on a terminal, lines in a pipe."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from runner.console import terminal
from runner.console.durations import about, clock

SECONDS_BETWEEN_LINES = 10.0


def size_text(size: float) -> str:
    """Bytes for people, in powers of ten as disks are sold.

    >>> size_text(999), size_text(1234), size_text(16_060_522_496)
    ('999 B', '1.2 kB', '16.1 GB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


@contextlib.contextmanager
def progress(
    total: int,
    name: str,
    *,
    unit: str = "",
    console: Console | None = None,
    line_every_s: float = SECONDS_BETWEEN_LINES,
) -> Iterator[Callable[[int], None]]:
    """A bar with the time left on a terminal; in a pipe, a line now and then. What is yielded is called with the bytes,
    or with the number of `unit` (such as files), that are new.
    """
    console = console or terminal.messages()
    if console.is_terminal and not console.is_dumb_terminal:
        amount = [MofNCompleteColumn()] if unit else [DownloadColumn(), TransferSpeedColumn()]
        columns = (TextColumn("{task.description}"), BarColumn(), *amount, _Left())
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(name, total=total)
            yield lambda count: bar.advance(task, count)
        return
    done, began = 0, time.monotonic()
    next_line_at = began + line_every_s

    def watch(count: int) -> None:
        nonlocal done, next_line_at
        done += count
        now = time.monotonic()
        if now >= next_line_at and 0 < done < total:
            next_line_at = now + line_every_s
            left = about((now - began) / done * (total - done))
            amounts = f"{done} of {total} {unit}" if unit else f"{size_text(done)} of {size_text(total)}"
            terminal.say(console, f"{name}: {amounts}, {left} left")

    yield watch


class _Left(ProgressColumn):
    """The time left; the elapsed time until the speed is known."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        known = task.time_remaining
        text = f"{clock(task.elapsed or 0.0)} elapsed" if known is None or task.finished else f"{about(known)} left"
        return Text(text, style="progress.remaining")
