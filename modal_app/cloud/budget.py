"""A step's share of a budget: when a container stops for it, and what is recorded then. Standard library.

What counts are the records of `meter`: the seconds of every container that has worked on the step, with its boot.
"""

from __future__ import annotations

import time
from dataclasses import replace

from modal_app.cloud.container import Limits
from modal_app.cloud.meter import records_of
from modal_app.store.layout import Attempt, StepFolder
from modal_app.store.step import FailureReason, Outcome, OutcomeStatus, Share, write_atomically

LONGEST_MARGIN_S = 300.0
"""How long before its share is spent a worker is asked to stop, unless a tenth of the share is less: it ends its step
and writes a checkpoint."""
PATIENCE_S = 60.0
"""How long after its share is spent a worker that still runs is killed: otherwise it could run for a day."""


def limits(share: Share, folder: StepFolder) -> Limits:
    """The limits of a container whose own record is up to date."""
    spent_at = time.monotonic() + share.seconds - seconds(folder)
    return Limits(spent_at - min(share.seconds / 10, LONGEST_MARGIN_S), spent_at + PATIENCE_S)


def is_spent(share: Share, folder: StepFolder) -> bool:
    """Whether the step must not be tried again: so little is left that it would be stopped at once."""
    return bool(folder.attempts()) and limits(share, folder).stop_at <= time.monotonic()


def seconds(folder: StepFolder) -> float:
    """The seconds of all containers that have worked on the step so far."""
    return sum(one.seconds for one in records_of(folder))


def fail(share: Share, attempt: Attempt, outcome: Outcome) -> None:
    """Record an attempt that was stopped for its share as failed: Modal would start a stopped one again.

    The same holds for one whose rank died. One that ended in another way keeps its own outcome.
    """
    if _is_over(outcome) or outcome.status is OutcomeStatus.SUCCEEDED:
        return
    message = f"stopped: its share of the budget, {_money(share.dollars)}, is spent ({outcome.message})"
    message += "; the same command with a higher budget continues it"
    failed = replace(outcome, status=OutcomeStatus.FAILED, reason=FailureReason.BUDGET, message=message)
    write_atomically(attempt.result, failed.to_json())


def refuse(share: Share, attempt: Attempt, outcome: Outcome) -> None:
    """Record that a step is not tried again, since its share is spent. `attempt`: the last one, with its outcome."""
    not_tried = f"; not tried again, since its share of the budget, {_money(share.dollars)}, is spent"
    if not _is_over(outcome):
        fail(share, attempt, outcome)
    elif outcome.reason is not FailureReason.BUDGET and not outcome.message.endswith(not_tried):
        write_atomically(attempt.result, replace(outcome, message=outcome.message + not_tried).to_json())


def _is_over(outcome: Outcome) -> bool:
    return outcome.status is OutcomeStatus.FAILED and outcome.reason is not FailureReason.LOST


def _money(dollars: float) -> str:
    return f"${dollars:.2f}" if dollars >= 0.1 else f"${dollars:.2g}"
