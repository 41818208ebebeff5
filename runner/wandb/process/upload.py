"""Brings W&B up to date with the runs of a store: uploads offline runs, then adds what W&B still lacks.

`wandb sync` uploads the file of an offline run, once. The file of a killed run lacks what was not flushed, and an
interrupted upload may have left out some rows. metrics.jsonl has all of them, so W&B's history is compared with it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import wandb
import wandb.errors
from wandb.apis.public.runs import RunNotFoundError

from runner.console.harmless import harmless_log
from runner.wandb.history import MOST_ROWS, STEP, missing, rows_of
from runner.wandb.messages import LocalRun, UploadRequest, UploadResponse, UploadResult
from runner.wandb.process import sdk

EMPTY_BYTES = 7
"""The size of the header, which is all that a run has written if it was killed before its first flush."""


def upload(api: Any, request: UploadRequest) -> UploadResponse:
    new = {run.key: [part for part in _offline_parts(run) if not _is_uploaded(part)] for run in request.runs}
    _wandb_sync([part for parts in new.values() for part in parts])
    return UploadResponse(tuple(_result(api, run, new[run.key]) for run in request.runs))


def _offline_parts(run: LocalRun) -> list[Path]:
    """The offline runs of the SDK from all attempts, oldest first, without empty ones."""
    found = sorted(Path(run.folder, "wandb").glob(f"offline-run-*-{run.id}/run-{run.id}.wandb"))
    return [part for part in found if part.stat().st_size > EMPTY_BYTES]


def _is_uploaded(part: Path) -> bool:
    """By W&B's own marks: uploaded completely, or, if a kill has cut it off, as far as it can be read."""
    return any(part.with_name(f"{part.name}.{mark}").exists() for mark in ("synced", "syncstate"))


def _wandb_sync(parts: Sequence[Path]) -> None:
    if not parts:
        return
    command = [sys.executable, "-P", "-m", "wandb", "sync", *(str(part.parent) for part in parts)]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False
    )
    if not all(map(_is_uploaded, parts)):
        print(harmless_log(done.stdout), file=sys.stderr)


def _result(api: Any, run: LocalRun, parts: Sequence[Path]) -> UploadResult:
    """The boundary for errors of one run: they do not stop the others."""
    failed = [part for part in parts if not _is_uploaded(part)]
    if failed:
        return UploadResult(run.key, f"{len(failed)} offline parts were not accepted by W&B: see above", failed=True)
    done = [f"{len(parts)} offline {'part' if len(parts) == 1 else 'parts'} uploaded"] if parts else []
    try:
        done += _complete(api, run)
    except Exception as error:  # the boundary of one run: the SDK may raise anything for a server's odd answer
        what = str(error).strip() if isinstance(error, sdk.ERRORS) else f"{type(error).__name__}: {error}"
        return UploadResult(run.key, f"W&B: {what}", failed=True)
    return UploadResult(run.key, ", ".join(done) or "up to date")


def _complete(api: Any, local: LocalRun) -> list[str]:
    """Add what W&B lacks of a run; returns a description of it."""
    rows = rows_of(Path(local.folder, "metrics.jsonl"))
    if len(rows) > MOST_ROWS:
        done = [f"more than {MOST_ROWS} rows: not compared with metrics.jsonl"]
    else:
        run = _run(api, local)
        lacking = missing(rows, [] if run is None else list(run.history(samples=MOST_ROWS, pandas=False)))
        if lacking:
            _log(local, rows, lacking, new=run is None)
        done = [f"{len(lacking)} of {len(rows)} rows added from metrics.jsonl"] if lacking else []
    run = _run(api, local)
    return done + (_amend(run, local) if run is not None else [])


def _run(api: Any, local: LocalRun) -> Any:
    """The run in W&B; None if there is no such run. Raises CommError when W&B does not answer."""
    api.flush()  # otherwise, it would answer from its cache
    try:
        return api.run(local.path)
    except wandb.errors.CommError as error:
        if isinstance(error.exc, RunNotFoundError):
            return None
        raise


def _log(
    local: LocalRun, rows: Sequence[Mapping[str, Any]], lacking: Sequence[Mapping[str, Any]], *, new: bool
) -> None:
    """Continue or create the run, log the rows that it lacks, and set its summary to the last value of each metric.

    An existing run keeps its name and tags, since a user may have changed them in W&B.
    """
    run: Any = wandb.init(
        entity=local.entity or None, project=local.project, id=local.id, group=local.group, job_type="train",
        name=local.name if new else None, tags=[*local.tags, *local.sweeps] if new else None, resume="allow",
        mode="online", settings=wandb.Settings(disable_git=True, console="off", x_disable_stats=True),
    )  # fmt: skip
    run.config.update(dict(local.params), allow_val_change=True)
    run.define_metric(STEP)
    run.define_metric("*", step_metric=STEP, step_sync=True)
    for row in lacking:
        run.log(dict(row))
    for row in rows:
        run.summary.update(dict(row))
    run.finish(exit_code=0 if local.succeeded else 1)


def _amend(run: Any, local: LocalRun) -> list[str]:
    """Add what is known from later sweeps and from this machine: tags, parameters, seconds and dollars."""
    tags = [tag for tag in local.sweeps if tag not in run.tags]
    params = {name: value for name, value in local.params.items() if name not in run.config}
    summary = {name: value for name, value in local.summary.items() if run.summary.get(name) != value}
    if not (tags or params or summary):
        return []
    run.tags.extend(tags)
    run.config.update(params)
    run.summary.update(summary)
    run.update()
    return [f"{', '.join([*tags, *params, *summary])} added"]
