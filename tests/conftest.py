"""What many tests share: a command line composed for real, with nothing launched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from runner.api import application
from runner.command.page import page
from runner.environment.verdicts import Verdicts
from runner.preflight.stage import Preflight
from runner.request import Request
from runner.types import Experiment, RunResult


def refuse(experiments: Sequence[Experiment]) -> None:
    """Raises SweepError for the problems of composed jobs that are known without Axolotl."""
    Preflight(experiments, Verdicts(None, "")).refuse_blocked()


@dataclass
class RecordingLaunch:
    """Stands in for the launch: records what it gets, and returns the given results."""

    experiments: list[Experiment] = field(default_factory=list)
    request: Request | None = None
    batches: int = 0
    exit_code: int = 0
    succeed: bool = True

    def __call__(self, experiments: list[Experiment], request: Request) -> list[RunResult]:
        self.experiments += experiments
        self.request = request
        self.batches += 1
        return [
            RunResult(key=str(number), succeeded=self.succeed, objective=float(number), message="no memory")
            for number, _ in enumerate(experiments)
        ]


@pytest.fixture
def ask() -> Callable[..., RecordingLaunch]:
    """`ask("-m", "lora=r8,r16")`: what the application would launch."""

    def run(*arguments: str, succeed: bool = True) -> RecordingLaunch:
        requested = RecordingLaunch(succeed=succeed)
        requested.exit_code = application.run(list(arguments), requested, page)
        return requested

    return run
