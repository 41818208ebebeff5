"""Whether a sweep is still in progress."""

from __future__ import annotations

from collections.abc import Collection

from modal_app.store.layout import SEEN, Store
from modal_app.store.read_json import read_json
from runner.store.ledger import live_launchers
from runner.store.run_state import RunStatus
from runner.store.stores import is_mirror


def goes_on(store: Store, sweep: str, statuses: Collection[RunStatus], *, but: int | None = None) -> bool:
    """Whether a run is running, or a launcher still works on the pending ones. `but`: a process that is not counted."""
    if RunStatus.RUNNING in statuses:
        return True
    if not {RunStatus.PENDING, RunStatus.STOPPED, RunStatus.AT_RUNG, RunStatus.LOST} & set(statuses):
        return False
    if is_mirror(store):
        return not read_json(store.sweeps / sweep / SEEN).get("over", False)
    return any(owner.pid != but for owner in live_launchers(store, sweep))
