"""What becomes of a run on Modal that is stopped before its end: whether a checkpoint can be written in time. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping

from modal_app.cloud import budget, container
from modal_app.cloud.settings import HOUR_S, LONGEST_HOURS
from modal_app.store.checkpoints import can_resume
from runner.cost.types import Range
from runner.estimate.types import PlanCost, RunCost
from runner.estimate.words import span
from runner.preflight.findings import Finding, gate, warning
from runner.types import Experiment, Plan

KEY = "executor.modal.timeout_hours"


def time_findings(plan: Plan, cost: PlanCost, timeout_hours: float) -> dict[str, Finding]:
    """Run key -> what is wrong with the time limit of its calls."""
    experiments = {one.run.key: one.run.experiment for one in plan.pending}
    found = {one.key: _finding(one, experiments[one.key], timeout_hours) for one in cost.runs}
    return {key: one for key, one in found.items() if one is not None}


def stops_lines(plan: Plan, cost: PlanCost, timeout_hours: float) -> list[str]:
    """Which stops come too suddenly for a checkpoint of these runs, for people; none if there is always time."""
    resuming = {one.run.key for one in plan.pending if can_resume(one.run.experiment.axolotl)}
    longest = max((one.prediction.save_s for one in cost.runs if one.prediction and one.key in resuming), default=0.0)
    rooms = {
        "when Modal preempts a container": container.STOP_GRACE_S,
        "when a budget is spent": room_of_share(math.inf),
        "at the time limit of a call": _room(timeout_hours),
    }
    late = [f"{when} ({span(room)})" for when, room in rooms.items() if longest > room]
    if not late:
        return []
    return [
        f"stops   a checkpoint takes about {span(longest)} to write, which is too long {', '.join(late)}: then a run "
        "continues from its last regular checkpoint, and what it did since is lost"
    ]


def room_of_share(share_s: float) -> float:
    """Seconds for a checkpoint before a run whose share of the budget is so long is killed."""
    return min(share_s / 10, budget.LONGEST_MARGIN_S) + budget.PATIENCE_S


def _margin(timeout_hours: float) -> float:
    """How many seconds before the limit a worker is asked to stop; as `container.time_limits` has it."""
    return min(timeout_hours * HOUR_S / 5, container.LONGEST_MARGIN_S)


def _room(timeout_hours: float) -> float:
    """How many seconds later it is killed."""
    return _margin(timeout_hours) * 5 / 6


def _work(timeout_hours: float) -> float:
    """Seconds of a call until its worker is asked to stop."""
    return timeout_hours * HOUR_S - _margin(timeout_hours)


def _finding(one: RunCost, experiment: Experiment, timeout_hours: float) -> Finding | None:
    found, length = one.prediction, one.length
    work_s = _work(timeout_hours)
    if found is None or length is None or found.seconds.high <= work_s:
        return None
    if not can_resume(experiment.axolotl):
        return _cannot_go_on(found.seconds, experiment.axolotl, timeout_hours)
    room_s = _room(timeout_hours)
    if found.save_s <= room_s:
        return None
    between_s = found.seconds.likely / (length.saves - 1) if length.saves > 1 else math.inf
    too_long = (
        f"a checkpoint takes about {span(found.save_s)} to write, but {span(room_s)} are left for it at the limit"
    )
    if found.seconds.likely > work_s and between_s > work_s:
        expected = f"{too_long}, and the run comes to no regular checkpoint before: it fails there"
        return gate(KEY, f"{timeout_hours:g}", expected, _longer(between_s, "Save more often."))
    expected = f"{too_long}. So what a call does after its last regular checkpoint is lost"
    return warning(KEY, f"{timeout_hours:g}", expected, _longer(found.seconds.high, "Save often enough."))


def _cannot_go_on(seconds: Range, axolotl: Mapping[str, object], timeout_hours: float) -> Finding:
    why = "save_only_model=true" if axolotl.get("save_only_model") else "ReLoRA over quantized weights"
    work_s = _work(timeout_hours)
    ends = f"a run with {why} cannot go on from a checkpoint, and fails after {span(work_s)}"
    way_out = "Leave save_only_model out." if axolotl.get("save_only_model") else "Make the run shorter."
    way_out = _longer(seconds.high, way_out)
    if seconds.likely > work_s:
        return gate(KEY, f"{timeout_hours:g}", f"{ends}; it is estimated at {span(seconds.likely)}", way_out)
    return warning(KEY, f"{timeout_hours:g}", f"{ends}; it may take up to {span(seconds.high)}", way_out)


def _longer(needed_s: float, otherwise: str) -> str:
    """A time limit that leaves a call so many seconds to work, if Modal has one."""
    hours = next((hours for hours in range(1, LONGEST_HOURS + 1) if _work(hours) > needed_s), None)
    return f"Set {KEY}={hours}." if hours else otherwise
