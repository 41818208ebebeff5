"""The searches of a sweep that stop runs at rungs -> what the report draws of the newest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from modal_app.store.layout import Store
from runner.compare.halved import halved, missed_text, saved_text
from runner.compare.ranking import Row
from runner.compare.rung_reasons import reason_at, was_resumed
from runner.html_report.curves import rounded
from runner.store.run_state import RunStatus, status_text
from runner.store.searches import Search, searches_of

FINISHED, PROMOTED, RESUMED, AUDITED = "finished", "promoted", "resumed", "audit"
GOING_ON, OTHER = "not over", "failed"
"""How a run of a search ended, but for those that stopped, which are named after their rung."""


def search_values(store: Store, sweep: str, rows: Sequence[Row]) -> dict[str, Any] | None:
    """None for a sweep without rungs."""
    if not (found := searches_of(store, sweep)):
        return None
    newest, search = found[0], halved(found[0], rows)
    members = set(newest.members)
    own = [row for row in rows if row.key in members]
    return {
        "rungs": _rungs(own),
        "rule": f"Of the runs that reach a rung, the best 1 in {search.eta} continues. ",
        "sentences": [text for text in (saved_text(search), missed_text(search)) if text],
        "outcomes": {row.key: outcome(row, newest) for row in own},
    }


def outcome(row: Row, search: Search) -> str:
    """How a run has come through the rungs of its search."""
    match row.status:
        case RunStatus.AT_RUNG:
            return status_text(row.status, None, row.rung or 0)
        case RunStatus.RUNNING | RunStatus.PENDING | RunStatus.STOPPED:
            return GOING_ON
        case RunStatus.SUCCEEDED if search.is_for_audit(row.key, row.rungs):
            return AUDITED
        case RunStatus.SUCCEEDED if was_resumed(row):
            return RESUMED
        case RunStatus.SUCCEEDED if any(one.promoted for one in row.rungs):
            return PROMOTED
        case RunStatus.SUCCEEDED:
            return FINISHED
        case _:
            return OTHER


def rungs_of_run(row: Row) -> list[dict[str, Any]]:
    return [
        {"rung": one.rung, "step": one.step, "loss": rounded(one.loss), "why": reason_at(row, one)} for one in row.rungs
    ]


def _rungs(rows: Sequence[Row]) -> list[dict[str, int]]:
    steps = {one.rung: one.step for row in rows for one in row.rungs}
    return [{"rung": rung, "step": step} for rung, step in sorted(steps.items())]
