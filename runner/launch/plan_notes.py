"""What a user should know of a plan, though nothing in it is wrong."""

from __future__ import annotations

from runner.launch.held_out import separate_tables_note
from runner.launch.moved_keys import moved_note
from runner.launch.requested_before import changed_note
from runner.launch.rungs import uneven_rows_note
from runner.launch.types import Launch


def plan_notes(launch: Launch) -> tuple[str, ...]:
    """The notes about the runs of a planned launch."""
    plan, store = launch.plan, launch.store
    changed = changed_note(plan, store, trainer=launch.trainer) if launch.request.round is None else ""
    found = (moved_note(launch), uneven_rows_note(plan), separate_tables_note(plan, store), changed)
    return tuple(filter(None, found))
