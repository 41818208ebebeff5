"""`axosweep sync`: bring W&B up to date with what lies here: offline runs, lost steps, tags, dollars.

Everything that talks to W&B is in a process of its own (runner.wandb_upload): this one knows no W&B.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from modal_app.layout import Store
from modal_app.state import Phase, observe
from modal_app.step import StepKind
from modal_app.tracking import Kept, sweep_tag
from runner import terminal, tracking
from runner.compare import Row, compare_sweep
from runner.errors import SweepError
from runner.params import label
from runner.store import is_mirror
from runner.wandb_job import REFUSED, Answer, Job

EXIT_FAILED = 1
REACH_S = 10.0


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
    summary = {"seconds": row.seconds, "paid_seconds": row.paid_seconds, "dollars": row.dollars}
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
        params={**row.params, "run_key": row.key},
        summary={name: value for name, value in summary.items() if value is not None},
        finished=row.status == Phase.SUCCEEDED,
    )


def _refuse_unreachable() -> None:
    if not tracking.has_key():
        raise SweepError(
            f"Uploading needs a key for {tracking.host()}, and there is none here: `wandb login`, or {tracking.KEY}. "
            "The runs stay where they are until then."
        )
    try:
        urllib.request.urlopen(tracking.base_url(), timeout=REACH_S).close()
    except urllib.error.HTTPError:
        return  # an answer, whatever it says
    except (OSError, ValueError) as error:
        raise SweepError(f"W&B does not answer at {tracking.base_url()} ({error}). Nothing was uploaded.") from error


def _upload(jobs: list[Job]) -> list[Answer]:
    """One answer a job, in their order. Raises SweepError when W&B lets nobody in."""
    with tempfile.TemporaryDirectory() as logs:  # W&B's own, which it would leave in this folder
        done = subprocess.run(
            [sys.executable, "-P", "-m", "runner.wandb_upload"],
            input=json.dumps([asdict(job) for job in jobs]),
            stdout=subprocess.PIPE,
            env={**os.environ, "WANDB_DIR": logs},
            text=True,
            check=False,
        )
    if done.returncode == REFUSED:
        raise SweepError(
            f"{done.stdout.strip().rstrip('.')}. Is the key right? `wandb login --relogin`, or {tracking.KEY}."
        )
    if done.returncode != 0:
        raise SweepError("W&B could not be brought up to date; what it said stands above.")
    raw: list[Mapping[str, Any]] = json.loads(done.stdout)
    return [Answer(**one) for one in raw]


def _show(sweep: str, rows: list[Row], said: Mapping[str, str], *, as_json: bool) -> None:
    if as_json:
        told = [{"key": row.key, "label": label(row.params), "said": said[row.key]} for row in rows]
        json.dump({"sweep": sweep, "runs": told}, sys.stdout, indent=1)
        sys.stdout.write("\n")
        return
    console = terminal.results()
    console.print(f"{sweep}: {len(rows)} runs", markup=False)
    for row in rows:
        console.print(f"  {row.key}  {said[row.key]}", markup=False, soft_wrap=True)
