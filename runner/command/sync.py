"""`axosweep sync`: bring W&B up to date with what lies here: offline runs, lost steps, tags, dollars.

Everything that talks to W&B is in a process of its own (runner.wandb.upload_process): this one knows no W&B.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from modal_app.process.tracking import Kept, sweep_tag
from modal_app.store.layout import Store
from modal_app.store.state import Phase, observe
from modal_app.store.step import StepKind
from runner.compare.params import label
from runner.compare.ranking import Row, compare_sweep
from runner.console import terminal
from runner.console.print_json import print_json
from runner.store.run_state import RunStatus
from runner.store.stores import is_mirror
from runner.wandb.ask import ask, refuse_unreachable
from runner.wandb.messages import Answer, Job

EXIT_FAILED = 1
SUMMARY = ("seconds", "train_seconds", "paid_seconds", "dollars", "max_steps", "gpu", "peak_memory_gib")
"""What W&B is told of a run in the end: of all its attempts, which no single one of them knows."""


def sync(store: Store, sweep: str, *, as_json: bool) -> int:
    """Returns 1 when something could not be uploaded, else 0. Raises SweepError when nothing can be: no key, no W&B."""
    if is_mirror(store):
        from runner.executors import modal_verbs, modal_wandb

        modal_verbs.look(store, sweep)
    rows = compare_sweep(store, sweep)
    tracked = {row.key: kept for row in rows if (kept := Kept.read(_folder(store, row.key) / "wandb.json"))}
    works = {row.key for row in rows if observe(store, StepKind.TRAIN, row.key).phase is Phase.RUNNING}
    jobs = [_job(store, row, tracked[row.key], sweep) for row in rows if row.key in tracked and row.key not in works]
    answers: list[Answer] = []
    if jobs:
        _refuse_unreachable()
        if is_mirror(store):
            modal_wandb.fetch_wandb(store, sweep, [job.key for job in jobs])
        answers = _upload(jobs)
    said = {one.key: one.text for one in answers}
    for row in rows:
        if row.key in works:
            said[row.key] = "is at work; left for a later sync"
        elif row.key not in tracked:
            said[row.key] = "was never tracked (tracking=disabled, or not begun): nothing to upload"
    _show(sweep, rows, said, as_json=as_json)
    return EXIT_FAILED if any(one.failed for one in answers) else 0


def _folder(store: Store, key: str) -> Path:
    return store.folder(StepKind.TRAIN, key).path


def _job(store: Store, row: Row, kept: Kept, sweep: str) -> Job:
    known = {"run_key": row.key, "data_key": row.data_key, "eval_fingerprint": row.eval_fingerprint}
    later = {sweep_tag(one) for one in (*kept.sweeps, sweep) if one != kept.group}
    return Job(
        key=row.key,
        folder=str(_folder(store, row.key)),
        id=kept.id,
        project=kept.project or "axosweep",
        entity=kept.entity,
        group=kept.group,
        name=kept.name or label(row.params) or row.key,
        tags=kept.tags,
        sweeps=tuple(sorted(later)),
        params={**row.params, **{name: value for name, value in known.items() if value}},
        summary={name: value for name in SUMMARY if (value := getattr(row, name)) is not None},
        finished=row.status is RunStatus.SUCCEEDED,
    )


def _refuse_unreachable() -> None:
    refuse_unreachable("Uploading", "Nothing was uploaded: the runs stay where they are until then.")


def _upload(jobs: list[Job]) -> list[Answer]:
    """One answer a job, in their order. Raises SweepError when W&B lets nobody in."""
    failed = "W&B could not be brought up to date; what it said stands above."
    raw = ask("runner.wandb.upload_process", [asdict(job) for job in jobs], failed=failed, otherwise="")
    return [Answer(**one) for one in raw]


def _show(sweep: str, rows: list[Row], said: Mapping[str, str], *, as_json: bool) -> None:
    if as_json:
        told = [{"key": row.key, "label": label(row.params), "said": said[row.key]} for row in rows]
        print_json({"sweep": sweep, "runs": told})
        return
    terminal.result(f"{sweep}: {len(rows)} runs")
    for row in rows:
        terminal.result(f"  {row.key}  {said[row.key]}")
