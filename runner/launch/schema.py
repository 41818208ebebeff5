"""Axolotl's own verdict on all that would run, asked for before anything starts."""

from __future__ import annotations

from runner.console import terminal
from runner.launch.types import Launch
from runner.preflight.schema import Validator

ASKING = "Asking Axolotl's own schema; its imports take some seconds."
ASKING_AT_ONCE = "Asking Axolotl's own schema."
NOT_ASKED = (
    "Axolotl's own schema was not asked: there is no current trainer environment here (axosweep setup builds it). What "
    "it refuses would fail when its dataset is prepared."
)


def ask_schema(launch: Launch, validator: Validator | None, asking: str = ASKING) -> bool:
    """Whether the verdict on every run that is not finished is known, after asking for what is not.

    `asking`: what is said where Axolotl has to be imported for it.
    """
    preflight, wanted = launch.preflight, launch.pending_experiments
    if not preflight.unasked(wanted):
        return True
    if validator is None:
        terminal.message(NOT_ASKED)
        return False
    terminal.message(ASKING_AT_ONCE if validator.is_up else asking)
    preflight.ask(validator, wanted)
    return True
