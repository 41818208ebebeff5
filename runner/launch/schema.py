"""Checks everything that would run with Axolotl's own schema, before anything starts."""

from __future__ import annotations

from collections.abc import Sequence

from runner.console import terminal
from runner.errors import SweepError
from runner.launch.types import Launch
from runner.preflight.schema import Validator
from runner.preflight.stage import Preflight
from runner.types import Experiment

CHECKING = "Checking with Axolotl's own schema; its imports take a few seconds."
CHECKING_AT_ONCE = "Checking with Axolotl's own schema."
NOT_CHECKED = (
    "Not checked with Axolotl's own schema, nor whether the trainer can import what the configs name: there is no "
    "current trainer environment here (axosweep setup builds it). A run that the schema refuses would fail when "
    "its dataset is prepared. A run whose packages are missing would fail after it has loaded its model."
)


def ask_schema(
    launch: Launch,
    validator: Validator | None,
    experiments: Sequence[Experiment] | None = None,
    *,
    message: str = CHECKING,
) -> bool:
    """Check every run that is not checked yet. False if that is not possible here.

    `experiments`: unless they are given, those of the runs that are not finished, and for a search each value of each
    axis. `message`: printed if Axolotl has to be imported for it.
    """
    preflight = launch.preflight
    wanted = (*launch.pending_experiments, *_others(launch)) if experiments is None else experiments
    if not preflight.unanswered(wanted):
        return True
    if validator is None:
        terminal.message(NOT_CHECKED)
        return False
    terminal.message(CHECKING_AT_ONCE if validator.is_up else message)
    preflight.ask(validator, wanted)
    return True


def refusal_of(launch: Launch) -> str:
    """The findings that prevent a launch from starting, for people; empty if there are none. A search is refused for a
    value that its first round does not have, too."""
    if refusal := launch.preflight.refusal():
        return refusal
    others = _others(launch)
    return Preflight(others, launch.preflight.verdicts, force=launch.request.force).refusal() if others else ""


def refuse_blocked(launch: Launch) -> None:
    """Raises SweepError with these findings, if there are any."""
    if refusal := refusal_of(launch):
        raise SweepError(refusal)


def _others(launch: Launch) -> tuple[Experiment, ...]:
    return launch.request.round.others if launch.request.round else ()
