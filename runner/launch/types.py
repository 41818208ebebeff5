"""The value that passes from stage to stage: what was requested, where it runs, and what is known about it."""

from __future__ import annotations

from dataclasses import dataclass

from modal_app.store.layout import Store
from runner.estimate.types import PlanCost
from runner.preflight.stage import Preflight
from runner.request import Request
from runner.types import ExecutorChoice, Experiment, Plan, Run

NO_PLAN = Plan("", (), ())


@dataclass(frozen=True, slots=True)
class Launch:
    """A sweep between its request and its runs. Each stage returns a new one with its findings added, and `plan` prints
    the one that a launch executes."""

    experiments: tuple[Experiment, ...]
    request: Request
    executor: ExecutorChoice
    """The executor of all its runs."""
    store: Store
    """Where the executor's runs are recorded."""
    local_store: Store
    """This machine's: it has the remembered verdicts of Axolotl's schema, and the preloaded trainer."""
    trainer: str
    """The hash of everything that trains."""
    preflight: Preflight
    """The problems that are known; Axolotl's schema adds to them."""
    runs: tuple[Run, ...] = ()
    """One for each experiment, in their order, once they are identified."""
    plan: Plan = NO_PLAN
    cost: PlanCost | None = None
    """None until it is priced, and for a launch that rents nothing."""

    @property
    def on_this_machine(self) -> bool:
        return self.executor.type == "local"

    @property
    def pending_experiments(self) -> tuple[Experiment, ...]:
        """The experiments of the runs that are not finished."""
        return tuple(planned.run.experiment for planned in self.plan.pending)
