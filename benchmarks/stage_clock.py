"""axosweep with a clock on the stages of its launcher: `python stage_clock.py FILE WORDS...`, for overhead.py.

If one stage runs inside another, its seconds count only for the inner one.
"""

from __future__ import annotations

import time

BEGAN = time.time()

import functools  # noqa: E402
import importlib  # noqa: E402
import json  # noqa: E402
import sys  # noqa: E402
from collections.abc import Callable  # noqa: E402
from dataclasses import dataclass, field  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

STAGES = {
    "compose": ("runner.composing.hydra_sweep:space_of", "runner.composing.hydra_sweep:compose_jobs"),
    "preflight": ("runner.preflight.stage:Preflight.__post_init__", "runner.preflight.stage:Preflight.findings"),
    "import, schema": ("runner.preflight.stage:Preflight.ask",),
    "identify": ("runner.launch.sweep:identify",),
    "plan": ("runner.launch.sweep:plan", "runner.show.tables:show_plan"),
    "record": ("runner.launch.execute:_make_folders", "runner.launch.execute:record_request"),
    "execute": ("runner.executors.local:LocalExecutor.execute",),
    "watch": ("runner.show.progress:Progress.update",),
    "compare": ("runner.launch.sweep:compare_sweep", "runner.show.tables:show_rows"),
    "report": ("runner.launch.sweep:leave_report",),
}
"""The functions of each stage, as module:name."""
REST = "start and the rest"


@dataclass
class StageClock:
    seconds: dict[str, float] = field(default_factory=dict)
    _open: list[str] = field(default_factory=lambda: [REST])
    _since: float = BEGAN

    def turn(self) -> None:
        """Add the time since the last call to the innermost open stage."""
        now = time.time()
        self.seconds[self._open[-1]] = self.seconds.get(self._open[-1], 0.0) + now - self._since
        self._since = now

    def around(self, stage: str, work: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(work)
        def timed(*arguments: Any, **named: Any) -> Any:
            self.turn()
            self._open.append(stage)
            try:
                return work(*arguments, **named)
            finally:
                self.turn()
                self._open.pop()

        return timed

    def watch(self, stage: str, place: str) -> None:
        """Raises AttributeError when the function no longer exists: its time would otherwise count for the rest."""
        module, _, name = place.partition(":")
        *owners, last = name.split(".")
        owner: Any = functools.reduce(getattr, owners, importlib.import_module(module))
        setattr(owner, last, self.around(stage, getattr(owner, last)))


def main() -> int:
    file, *words = sys.argv[1:]
    sys.argv[1:] = words
    from runner import cli

    clock = StageClock()
    for stage, places in STAGES.items():
        for place in places:
            clock.watch(stage, place)
    try:
        return cli.main(words)
    finally:
        clock.turn()
        Path(file).write_text(json.dumps({"began": BEGAN, "ended": time.time(), "stages": clock.seconds}))


if __name__ == "__main__":
    sys.exit(main())
