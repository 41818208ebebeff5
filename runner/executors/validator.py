"""A separate process that checks configs against Axolotl's schema, for launches that need no preloaded trainer."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from modal_app.process.signals import signal_group
from modal_app.store.out_of_memory import KillCount
from modal_app.store.sources import RUN
from runner.executors.workers import could_not_ask

POLL_S = 1.0
"""A Ctrl-C that comes just before this process sleeps is seen when it wakes."""


@dataclass(frozen=True, slots=True)
class FreshValidator:
    python: Path
    is_up: bool = False

    def validate(self, folder: Path) -> None:
        """Answer a folder's questions (modal_app.oneshot.validate). Raises SweepError when there is no answer."""
        log, kills = folder / "log.txt", KillCount()
        with log.open("wb") as output:
            process = subprocess.Popen(
                [self.python, RUN, "validate", folder],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, "HF_HUB_OFFLINE": "1"},
                start_new_session=True,
            )
        try:
            while (code := process.poll()) is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(POLL_S)
        except BaseException:  # an interrupt: no process would read the answers
            signal_group(process.pid, signal.SIGKILL)
            process.wait()
            raise
        if code != 0:
            raise could_not_ask(code, log, kills)
