"""Says which runs were requested before in the same words, and are other runs now."""

from __future__ import annotations

from modal_app.store.layout import Store
from runner.launch.plan_diff import changed_since
from runner.store.ledger import Ledger, sweep_ids
from runner.types import Plan

SWEEPS_LOOKED_AT = 20
"""The newest ones."""


def changed_note(plan: Plan, store: Store, *, trainer: str) -> str:
    """A note if pending runs have the overrides of earlier runs and another key, since a file or the trainer has
    changed; otherwise empty."""
    pending = {one.run.experiment.overrides: one.run for one in plan.pending}
    for sweep in sweep_ids(store)[:SWEEPS_LOOKED_AT]:
        earlier = {one.overrides: one.key for one in Ledger(store, sweep).plan().runs if one.overrides in pending}
        moved = {words: key for words, key in earlier.items() if pending[words].key != key}
        if sweep == plan.sweep or not moved:
            continue
        words, key = next(iter(moved.items()))
        if changed := changed_since(pending[words], store, key, trainer=trainer):
            runs = f"{len(moved)} of these runs" if len(plan.runs) > 1 else "this run"
            return f"{runs} had another key in {sweep}. This has changed since then: {changed}."
    return ""
