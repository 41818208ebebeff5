"""The live view of a sweep for those who follow it: `attach`, `watch`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from rich.console import Console
from rich.text import Text

from modal_app.store.layout import Store
from runner.compare.source import RunFacts, facts_of_sweep
from runner.console import terminal
from runner.console.cut import start_of
from runner.show.downloads import download_lines
from runner.show.following import headway_of_sweep, lines_of, run_lines
from runner.show.headway import ExpectedSeconds
from runner.show.redraw import Redraw, can_redraw, marks_of
from runner.show.screen import screen


@dataclass(slots=True)
class SweepView:
    """The live view on a terminal; in a pipe, a line for each change of status."""

    store: Store
    sweep: str
    console: Console = field(default_factory=terminal.messages)
    _redraw: Redraw | None = None
    _printed: dict[str, tuple[object, ...]] = field(default_factory=dict)

    @property
    def is_live(self) -> bool:
        return can_redraw(self.console)

    def update(self) -> None:
        facts = facts_of_sweep(self.store, self.sweep)
        if self.is_live:
            self._redraw = self._redraw or Redraw(self.console)
            self._draw(facts, self._redraw)
            return
        for line in run_lines(facts):
            if not line.is_deciding and self._printed.get(line.key) != line.change:
                self._printed[line.key] = line.change
                words = "  ".join(filter(None, (line.status_text, line.at_rung, line.message)))
                terminal.say(self.console, f"{line.kind:<10} {line.label}: {words}")

    def _draw(self, facts: Sequence[RunFacts], redraw: Redraw) -> None:
        now, marks = time.time(), marks_of(self.console)
        expected = ExpectedSeconds.read(self.store, self.sweep)
        lines = [*download_lines(self.store, self.sweep), *lines_of(self.store, facts)]
        headway = headway_of_sweep(self.store, self.sweep, facts, now)
        redraw.show(
            lambda size: [
                Text(start_of(self.sweep, size.width, marks.ellipsis), style="bold"),
                *screen(lines, headway, replace(size, height=size.height - 1), now=now, marks=marks, expected=expected),
            ]
        )

    def close(self) -> None:
        if self._redraw is not None:
            self._redraw.close()
