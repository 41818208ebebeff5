"""The progress of a transfer: sizes as text, a bar on a terminal, lines in a pipe."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from runner.console import terminal

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
def progress(total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal; in a pipe, a line every ten seconds."""
    console = terminal.messages()
    if console.is_terminal:
        columns = (TextColumn("pull"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task("pull", total=total)
            yield lambda count: bar.advance(task, count)
        return
    received, next_line_at = 0, time.monotonic() + SECONDS_BETWEEN_LINES

    def watch(count: int) -> None:
        nonlocal received, next_line_at
        received += count
        if time.monotonic() >= next_line_at:
            next_line_at = time.monotonic() + SECONDS_BETWEEN_LINES
            terminal.say(console, f"pull: {size_text(received)} of {size_text(total)}")

    yield watch
