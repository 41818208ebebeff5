"""At the end of a launch that tracks online, and of `attach`: the verdict on the settings goes into the summaries of
the runs in W&B, which their own processes could not know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from modal_app.process.tracking import TrackingRecord
from modal_app.store.layout import Store
from modal_app.store.step import StepKind
from runner.compare.ranking import EVAL_LOSS, Row
from runner.compare.row_losses import verdicts_of
from runner.errors import SweepError
from runner.types import Plan

LATER = "`axosweep sync` adds it."
LONGEST_S = 300.0


def add_verdict(plan: Plan, store: Store, rows: Sequence[Row]) -> str:
    """Returns why the verdict is not in W&B, or not with all runs; empty if it is, or if there is nothing to add."""
    online = {one.run.key for one in plan.runs if one.step.tracking.mode == "online"}
    records = {row.key: _record(store, row.key) for row in rows if row.key in online}
    tracked = {key: record for key, record in records.items() if record is not None and not record.offline}
    return _add(plan.sweep, store, rows, tracked)


def add_verdict_of_tracked(sweep: str, store: Store, rows: Sequence[Row]) -> str:
    """The same for a sweep of which only its store is known."""
    records = {row.key: record for row in rows if (record := _record(store, row.key)) is not None}
    tracked = {key: one for key, one in records.items() if one.mode == "online" and not one.offline}
    return _add(sweep, store, rows, tracked)


def _add(sweep: str, store: Store, rows: Sequence[Row], tracked: Mapping[str, TrackingRecord]) -> str:
    verdicts = {one.eval_fingerprint: one for one in (verdicts_of(rows, EVAL_LOSS) if tracked else ())}
    if not verdicts:
        return ""
    from runner.wandb.call import call, check_reachable  # imported late: most launches need none
    from runner.wandb.local_runs import local_run
    from runner.wandb.messages import AmendRequest, UploadResponse

    runs = tuple(
        local_run(store, row, tracked[row.key], sweep, verdicts.get(str(row.eval_fingerprint)))
        for row in rows
        if row.key in tracked
    )
    failed = f"Its error is printed above. {LATER}"
    try:
        check_reachable("Adding it", LATER)
        request = AmendRequest(runs)
        results = call(request, UploadResponse, failed=failed, advice=LATER, timeout_s=LONGEST_S).results
    except SweepError as error:
        return f"The verdict is not in W&B. {error}"
    lacking = [one for one in results if one.failed]
    return f"The verdict is not in W&B for {len(lacking)} runs ({lacking[0].text}). {LATER}" if lacking else ""


def _record(store: Store, key: str) -> TrackingRecord | None:
    return TrackingRecord.read(store.folder(StepKind.TRAIN, key).tracking)
