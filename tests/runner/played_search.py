"""Searches whose runs are not trained: each at once has the result of a function of its config."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modal_app.store.layout import Store
from modal_app.store.step import FailureReason, OutcomeStatus, StepKind, write_atomically
from runner.api import application
from runner.launch.execute import record_request
from runner.launch.identify import identify, resolve
from runner.launch.plan import plan
from runner.request import Action, Request
from runner.types import Experiment, Run, RunResult
from tests.runner.builders import finish, finish_run

Config = Mapping[str, Any]
LossOf = Callable[[Config], float | None]
"""The last loss on the held-out rows: NaN for a run that diverges, None for one that fails."""


@dataclass
class World:
    """Stands in for the launch of rounds."""

    store: Store
    reached: LossOf
    dies_after: float = math.inf
    """The runs after which the launcher is killed."""
    trained: list[str] = field(default_factory=list)
    """The keys of all runs that were trained, in order."""
    rounds: list[list[Config]] = field(default_factory=list)
    """The configs of each launch; of a plan, too."""
    requests: list[Request] = field(default_factory=list)
    exit_code: int | None = None

    def __call__(self, experiments: Sequence[Experiment], request: Request) -> list[RunResult]:
        self.requests.append(request)
        launch = plan(identify(resolve(experiments, request)))
        self.rounds.append([one.experiment.axolotl for one in launch.runs])
        if request.action is Action.PLAN:
            return []
        record_request(launch)
        if request.round is None or not request.round.closing:
            for planned in launch.plan.pending:
                self._train(planned.run)
        states = [self.store.folder(StepKind.TRAIN, run.key).done.exists() for run in launch.runs]
        return [RunResult(run.key, done, None) for run, done in zip(launch.runs, states, strict=True)]

    def search(self, *words: str) -> World:
        """Launch or plan a search, as a new command."""
        self.rounds, self.requests = [], []
        store = f"store={self.store.root}"
        self.exit_code = application.run(["-m", *words, store, "tracking=disabled"], self)
        return self

    @property
    def closing(self) -> list[Config]:
        """All runs of a search that has ended."""
        last = self.requests[-1].round
        assert last is not None
        assert last.closing
        return self.rounds[-1]

    def _train(self, run: Run) -> None:
        if len(self.trained) >= self.dies_after:
            raise KeyboardInterrupt
        self.trained.append(run.key)
        folder = self.store.folder(StepKind.TRAIN, run.key)
        folder.path.mkdir(parents=True, exist_ok=True)
        requested = run.experiment
        described = {
            "axolotl": dict(requested.axolotl),
            "gpu": {"type": requested.gpu.type, "count": requested.gpu.count},
        }
        write_atomically(
            folder.identity, json.dumps({**described, "data": {"limit": None, "seed": requested.data.seed}})
        )
        loss = self.reached(requested.axolotl)
        if loss is None or math.isnan(loss):
            reason = FailureReason.ERROR if loss is None else FailureReason.NAN
            finish(self.store, StepKind.TRAIN, run.key, OutcomeStatus.FAILED, reason=reason)
        else:
            finish_run(self.store, run, {0: 5.0, 9: loss})
