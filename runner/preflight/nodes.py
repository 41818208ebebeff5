"""Problems outside `axolotl:`: the tracking, executor and prices nodes of a composed job. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator

from runner.config.numbers import is_count
from runner.cost.prices import table_problems
from runner.errors import did_you_mean
from runner.preflight.findings import Finding, error, from_problem, shown
from runner.types import ExecutorChoice, Experiment, TrackingChoice

MODES = ("online", "offline", "disabled")


def node_findings(experiment: Experiment) -> Iterator[Finding]:
    yield from _tracking(experiment.tracking)
    yield from _executor(experiment.executor)
    if experiment.prices is not None:
        yield from map(from_problem, table_problems(experiment.prices))


def _tracking(tracking: TrackingChoice) -> Iterator[Finding]:
    if tracking.mode not in MODES:
        meant = did_you_mean(str(tracking.mode), MODES).strip()
        yield error("tracking.mode", tracking.mode, f"expected one of {', '.join(MODES)}", meant)
    if not isinstance(tracking.sweep_object, bool):
        yield error("tracking.sweep_object", tracking.sweep_object, "expected true or false")
    elif tracking.sweep_object and tracking.mode in ("offline", "disabled"):
        why = f"W&B creates it at the launch, and tracking={tracking.mode} does not contact W&B"
        yield error("tracking.sweep_object", True, why, "Choose tracking=wandb.")


def no_text_findings(tracking: TrackingChoice) -> Iterator[Finding]:
    """Values that W&B needs in another type than text; checked before they are converted to text."""
    if tracking.project is None:
        yield error("tracking.project", None, "expected a name", "Give it one, or choose tracking=disabled.")
    if tracking.tags is not None and not isinstance(tracking.tags, list | tuple):
        way_out = f"Write tracking.tags=[{shown(tracking.tags)}]."
        yield error("tracking.tags", tracking.tags, "expected a list", way_out)


def _executor(executor: ExecutorChoice) -> Iterator[Finding]:
    if executor.parallel is not None and not is_count(executor.parallel):
        yield error("executor.parallel", executor.parallel, "expected a number of runs at a time, at least 1, or null")
    if executor.max_gpus is not None and not is_count(executor.max_gpus):
        yield error("executor.max_gpus", executor.max_gpus, "expected a number of GPUs at a time, at least 1, or null")
    elif executor.max_gpus is not None and executor.type != "modal":
        yield error(
            "executor.max_gpus",
            executor.max_gpus,
            "it limits only what executor=modal rents",
            f"With executor={executor.type}, executor.parallel sets how many runs train at a time.",
        )
    yield from map(from_problem, executor.problems)
    if not isinstance(executor.warm, bool):
        yield error("executor.warm", executor.warm, "expected true or false")
    idle = executor.warm_idle_s
    if idle is not None and (isinstance(idle, bool) or not isinstance(idle, int | float) or not 0 <= idle < math.inf):
        yield error("executor.warm_idle_s", idle, "expected seconds, 0 or more, or null")
