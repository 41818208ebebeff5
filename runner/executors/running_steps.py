"""The steps of a launch on this machine, and what the launch knows of each while it runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from modal_app.store.step import Step, StepKind
from runner.types import Plan, StepId


@dataclass(slots=True)
class RunningStep:
    step: Step
    needs: StepId | None = None
    attempts_before: int = 0
    submitted: bool = False
    started: bool = False
    followed: bool = False
    ended: bool = False
    at_rung: int = 0
    """The rung of its search where it has ended; 0 if it has not."""
    promoted: int = 0
    """The rung that it goes on from."""

    @property
    def id(self) -> StepId:
        return self.step.kind, self.step.key

    def leave(self) -> None:
        """No worker of this launch works on it now."""
        self.submitted, self.started = False, False

    def end(self) -> None:
        self.ended, self.submitted = True, False


def steps_to_run(plan: Plan) -> Iterator[RunningStep]:
    """The steps that are not done; a dataset only if a pending run reads it."""
    wanted = {planned.run.data_key for planned in plan.pending}
    yield from (RunningStep(dataset.step) for dataset in plan.datasets if dataset.key in wanted and not dataset.done)
    trains = [planned for planned in plan.pending if planned.trains]
    for planned in trains:
        needs = None if planned.step.own_data else (StepKind.PREPROCESS, planned.run.data_key)
        yield RunningStep(planned.step, needs)
    yield from (RunningStep(planned.step, planned.needs) for planned in plan.after if not planned.done)
