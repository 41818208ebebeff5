"""A process in which a command was composed before, as in a notebook: its forks find the shipped files parsed.

A file that has changed since, or that takes the place of a shipped one, is read as it is.
"""

from __future__ import annotations

import contextlib
import gc
import io
from collections.abc import Sequence
from pathlib import Path

import tests.command_imports  # noqa: F401
from runner.api import application
from runner.environment.verdicts import Verdicts
from runner.preflight.stage import Preflight
from runner.request import Request
from runner.types import Experiment, RunResult


def launch_nothing(experiments: Sequence[Experiment], request: Request) -> list[RunResult]:
    """Check the rows of the datasets, as a launch does first."""
    Preflight(experiments, Verdicts(None, "")).refuse_blocked()
    return []


SILENT = io.StringIO()
with (
    contextlib.chdir(Path(__file__).parent.parent),  # without a conf/ of the test that happens to be the first one
    contextlib.redirect_stdout(SILENT),
    contextlib.redirect_stderr(SILENT),
):
    application.run(["-m", "lora=r8,r16", "learning_rate=1e-3", "++seed=1"], launch_nothing)
gc.freeze()  # no fork copies the memory of what is here already to look for garbage in it
