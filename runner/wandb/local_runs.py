"""The runs of a store as they should be in W&B: with all that is known only after their training."""

from __future__ import annotations

from typing import Any

from modal_app.process.tracking import RECEIPT, STOPPED_AT_RUNG, TrackingRecord, axolotl_config, sweep_tag
from modal_app.store.layout import Store
from modal_app.store.read_json import read_json
from modal_app.store.redact import redacted
from modal_app.store.step import StepKind
from runner.compare.params import label
from runner.compare.ranking import Row
from runner.compare.verdict_types import OF_A_RUN, Verdict
from runner.store.ledger import Ledger
from runner.store.run_state import RunStatus
from runner.wandb.messages import LocalRun

SUMMARY = ("seconds", "train_seconds", "paid_seconds", "dollars", "max_steps", "gpu", "peak_memory_gib", "healed")
"""What a run's summary in W&B gets in the end: values over all attempts, which a single attempt does not know."""


def local_run(store: Store, row: Row, record: TrackingRecord, sweep: str, verdict: Verdict | None) -> LocalRun:
    """`verdict`: the sweep's, that of the row's eval fingerprint."""
    folder = store.folder(StepKind.TRAIN, row.key)
    known = {"run_key": row.key, "data_key": row.data_key, "eval_fingerprint": row.eval_fingerprint}
    swept = redacted({**row.params, **{name: value for name, value in known.items() if value}})
    judged = verdict_summary(row.key, sweep, verdict)
    later = {sweep_tag(one) for one in (*record.sweeps, sweep) if one != record.group}
    return LocalRun(
        key=row.key,
        folder=str(folder.path),
        id=record.id,
        project=record.project or "axosweep",
        entity=record.entity,
        group=record.group,
        name=record.name or label(row.params) or row.key,
        tags=record.tags,
        sweeps=tuple(sorted(later)),
        config={**axolotl_config(read_json(folder.identity)), **swept},
        summary={
            **{name: value for name in SUMMARY if (value := getattr(row, name)) is not None},
            **({"rung": row.rungs[-1].rung, STOPPED_AT_RUNG: row.rung or 0} if row.rungs else {}),
            **receipt_summary(row),
            **judged,
        },
        unjudged_in="" if judged else sweep,
        notes=_notes(store, record, sweep),
        finished=row.status in (RunStatus.SUCCEEDED, RunStatus.AT_RUNG),
    )


def receipt_summary(row: Row) -> dict[str, Any]:
    """What its seconds were used for, over all attempts; which containers it was in, so that runs can be grouped by
    them, and why they ended."""
    if row.receipt is None:
        return {}
    each = row.receipt.containers
    parts = {"seconds": row.receipt.seconds, **row.receipt.parts}
    figures: dict[str, Any] = {f"{RECEIPT}{part}": seconds for part, seconds in parts.items()}
    texts = {"containers": " ".join(one.container for one in each)}
    texts["ended_because"] = "; ".join(dict.fromkeys(one.ended_because for one in each if one.ended_because))
    return figures | {f"{RECEIPT}{name}": text for name, text in texts.items() if text}


def verdict_summary(run: str, sweep: str, verdict: Verdict | None) -> dict[str, Any]:
    """What a verdict says of a run; empty if it is not judged. The sweep is named, since a run may be in several."""
    setting = verdict.setting_of(run) if verdict else None
    if verdict is None or setting is None:
        return {}
    figures = {f"verdict/{name}": getattr(setting, name) for name in OF_A_RUN}
    return figures | {"verdict/sweep": sweep, "verdict/text": redacted(verdict.sentences[0])}


def _notes(store: Store, record: TrackingRecord, sweep: str) -> tuple[str, ...]:
    """The notes of the first sweep that ran it, and of this one. Without secrets."""
    return tuple(map(redacted, dict.fromkeys(filter(None, (record.note, Ledger(store, sweep).plan().note)))))
