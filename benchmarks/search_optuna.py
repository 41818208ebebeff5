"""Optuna's pruners as rules of a search, used at the same rungs. They decide once: a pruned trial never goes on."""

from __future__ import annotations

from dataclasses import dataclass, field

import optuna

from benchmarks.search_curves import STEPS
from benchmarks.search_replay import ETA, RUNGS, Grid, Order

DIVERGED = 1e9


@dataclass(slots=True)
class PrunedRuns:
    grid: Grid
    study: optuna.Study
    trials: dict[int, optuna.Trial] = field(default_factory=dict)

    @classmethod
    def by_halving(cls, grid: Grid, order: Order) -> PrunedRuns:
        pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=RUNGS[0], reduction_factor=ETA)
        return cls(grid, _study(pruner, order))

    @classmethod
    def by_hyperband(cls, grid: Grid, order: Order) -> PrunedRuns:
        pruner = optuna.pruners.HyperbandPruner(min_resource=RUNGS[0], max_resource=STEPS, reduction_factor=ETA)
        return cls(grid, _study(pruner, order))

    def goes_on(self, run: int, rung: int) -> bool:
        if run not in self.trials:
            self.trials[run] = self.study.ask()
        loss = self.grid.readings[run][rung - 1].loss
        self.trials[run].report(DIVERGED if loss is None else loss, RUNGS[rung - 1])
        return loss is not None and not self.trials[run].should_prune()

    def ended(self, run: int, rung: int | None) -> None:
        if rung is None:
            self.study.tell(self.trials[run], float(self.grid.final[run]))
        else:
            self.study.tell(self.trials[run], state=optuna.trial.TrialState.PRUNED)

    def promoted(self) -> int | None:
        return None


def _study(pruner: optuna.pruners.BasePruner, order: Order) -> optuna.Study:
    """Hyperband draws the bracket of a trial by the study's name and the trial's number."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(
        pruner=pruner, sampler=optuna.samplers.RandomSampler(seed=0), study_name=" ".join(order.keys)
    )
