"""A process in which a command was composed before, as in a notebook: the forks of it have the shipped configs parsed.

A file that has changed since, or that takes the place of a shipped one, is read as it is.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path

import tests.command_imports  # noqa: F401
from runner.api import application
from runner.request import Request
from runner.types import Experiment, RunResult


def launch_nothing(experiments: Sequence[Experiment], request: Request) -> list[RunResult]:
    return []


SILENT = io.StringIO()
with (
    contextlib.chdir(Path(__file__).parent.parent),  # without a conf/ of the test that happens to be the first one
    contextlib.redirect_stdout(SILENT),
    contextlib.redirect_stderr(SILENT),
):
    application.run(["-m", "lora=r8,r16", "learning_rate=1e-3", "++seed=1"], launch_nothing)
