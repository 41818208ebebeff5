"""Checks everything that would run with Axolotl's own schema, before anything starts."""

from __future__ import annotations

from collections.abc import Sequence

from runner.console import terminal
from runner.launch.types import Launch
from runner.preflight.schema import Validator
from runner.types import Experiment

CHECKING = "Checking with Axolotl's own schema; its imports take some seconds."
CHECKING_AT_ONCE = "Checking with Axolotl's own schema."
NOT_CHECKED = (
    "Not checked with Axolotl's own schema, nor whether the trainer can import what the configs name: there is no "
    "current trainer environment here (axosweep setup builds it). A run that the schema refuses would fail when its "
    "dataset is prepared, and one whose packages are missing when it has loaded its model."
)


def ask_schema(
    launch: Launch,
    validator: Validator | None,
    experiments: Sequence[Experiment] | None = None,
    *,
    message: str = CHECKING,
) -> bool:
    """Check every run that is not checked yet. False if that is not possible here.

    `experiments`: those of the runs that are not finished, unless they are given. `message`: printed if Axolotl has to
    be imported for it.
    """
    preflight, wanted = launch.preflight, launch.pending_experiments if experiments is None else experiments
    if not preflight.unasked(wanted):
        return True
    if validator is None:
        terminal.message(NOT_CHECKED)
        return False
    terminal.message(CHECKING_AT_ONCE if validator.is_up else message)
    preflight.ask(validator, wanted)
    return True
