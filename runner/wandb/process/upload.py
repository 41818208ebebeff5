"""Brings W&B up to date with the runs of a store: uploads offline runs, then adds what W&B still lacks.

The file of a killed run lacks what was not flushed, and an interrupted upload may have left out some rows.
metrics.jsonl has all of them, so W&B's history is compared with it. The part of an early attempt may be uploaded after
a later attempt was tracked online; the state and the last losses in W&B would then be those of the early one. A run
that fails here is tried again by the next sync, since nothing marks it as done.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import wandb
import wandb.errors
from wandb.apis.public.runs import RunNotFoundError

from modal_app.store.read_json import read_json
from runner.wandb.history import EVAL_LOSS, MOST_ROWS, STEP, TRAIN_LOSS, missing, rows_of
from runner.wandb.messages import AmendRequest, LocalRun, UploadRequest, UploadResponse, UploadResult
from runner.wandb.process import parts, sdk
from runner.wandb.process.here import problem_here

VERDICT = "verdict/"
"""The prefix of what a summary has of a verdict."""
TRIED_AGAIN = "the next sync tries again"


def upload(api: Any, request: UploadRequest) -> UploadResponse:
    new = {run.key: parts.lacking(run) for run in request.runs}
    parts.upload([part for ones in new.values() for part in ones])
    return UploadResponse(tuple(_result(api, run, new[run.key]) for run in request.runs))


def amend(api: Any, request: AmendRequest) -> UploadResponse:
    """Add what is known only now to runs that are in W&B, without reading their history."""
    return UploadResponse(tuple(_amended(api, run) for run in request.runs))


def _amended(api: Any, local: LocalRun) -> UploadResult:
    """The boundary for errors of one run: they do not stop the others."""
    try:
        run = _run(api, local)
        if run is None:
            return UploadResult(local.key, "it is not in W&B", failed=True)
        return UploadResult(local.key, ", ".join(_amend(run, local)) or "up to date")
    except Exception as error:  # the boundary of one run: the SDK may raise anything for a server's odd answer
        return UploadResult(local.key, _text(error), failed=True)


def _text(error: Exception) -> str:
    if problem := problem_here(error):
        return problem.rstrip(".")
    text = str(error).strip() if isinstance(error, sdk.ERRORS) else f"{type(error).__name__}: {error}"
    return f"W&B: {text.rstrip('.')}"


def _result(api: Any, run: LocalRun, new: Sequence[Path]) -> UploadResult:
    """The boundary for errors of one run: they do not stop the others."""
    done = [f"{len(new)} offline {'part' if len(new) == 1 else 'parts'} uploaded"] if new else []
    try:
        if new and (_run(api, run) is None or parts.refused(new)):
            return UploadResult(run.key, f"W&B did not accept its offline run; {TRIED_AGAIN}", failed=True)
        parts.mark_uploaded(new)
        done += _complete(api, run)
    except Exception as error:  # the boundary of one run: the SDK may raise anything for a server's odd answer
        return UploadResult(run.key, f"{_text(error)}; {TRIED_AGAIN}", failed=True)
    return UploadResult(run.key, ", ".join(done) or "up to date")


def _complete(api: Any, local: LocalRun) -> list[str]:
    """Add what W&B lacks of a run; returns a description of it."""
    rows, run = rows_of(Path(local.folder, "metrics.jsonl")), _run(api, local)
    last = {name: value for row in rows for name, value in row.items()}
    history = [] if run is None else list(run.history(samples=MOST_ROWS, pandas=False))
    lacking = missing(rows, history)
    done = [f"{len(lacking)} of {len(rows)} rows added from metrics.jsonl"] if lacking else []
    if run is not None and max(len(rows), len(history)) >= MOST_ROWS:  # the history may be a sample
        lacking, done = [], [f"{MOST_ROWS} rows or more: not compared with metrics.jsonl"]
    if lacking or (run is not None and local.finished and _ends_otherwise(run, last)):
        _log(local, lacking, last, new=run is None)
        run = _run(api, local)
        done += [] if lacking else ["its state and last losses corrected"]
    return done + (_amend(run, local) if run is not None else [])


def _ends_otherwise(run: Any, last: Mapping[str, Any]) -> bool:
    """Whether W&B shows another end than that of a run that has finished with these values."""
    losses = [(run.summary.get(name), last[name]) for name in (TRAIN_LOSS, EVAL_LOSS) if name in last]
    return run.state != "finished" or not all(
        isinstance(there, int | float) and math.isclose(there, here) for there, here in losses
    )


def _run(api: Any, local: LocalRun) -> Any:
    """The run in W&B; None if there is no such run. Raises CommError when W&B does not answer."""
    api.flush()  # otherwise, it would answer from its cache
    try:
        return api.run(local.path)
    except wandb.errors.CommError as error:
        if isinstance(error.exc, RunNotFoundError):
            return None
        raise


def _log(local: LocalRun, lacking: Sequence[Mapping[str, Any]], last: Mapping[str, Any], *, new: bool) -> None:
    """Continue or create the run, log the rows that it lacks, and set its state, and its summary to the `last` value of
    each metric.

    An existing run keeps its name and tags, since a user may have changed them in W&B.
    """
    run: Any = wandb.init(
        entity=local.entity or None, project=local.project, id=local.id, group=local.group, job_type="train",
        name=local.name if new else None, tags=[*local.tags, *local.sweeps] if new else None, resume="allow",
        notes="\n".join(local.notes) if new else None,
        mode="online", settings=wandb.Settings(disable_git=True, console="off", x_disable_stats=True),
    )  # fmt: skip
    run.config.update(dict(local.config), allow_val_change=True)
    run.define_metric(STEP)
    run.define_metric("*", step_metric=STEP, step_sync=True)
    for row in lacking:
        run.log(dict(row))
    run.summary.update(dict(last))
    run.finish(exit_code=0 if local.finished else 1)


def _amend(run: Any, local: LocalRun) -> list[str]:
    """Add what later sweeps and this machine know: tags, notes, keys of the config, seconds and dollars."""
    tags = [tag for tag in local.sweeps if tag not in run.tags]
    config = {name: value for name, value in local.config.items() if name not in run.config}
    summary = {name: value for name, value in local.summary.items() if run.summary.get(name) != value}
    notes, stale = _new_notes(run, local), _stale(run, local)
    if not (tags or config or summary or notes or stale):
        _note_given(local)
        return []
    if notes:
        run.notes = "\n".join(filter(None, (run.notes, *notes)))
    run.tags.extend(tags)
    run.config.update(config)
    for name in stale:
        del run.summary[name]
    run.summary.update(summary)
    run.update()
    _note_given(local)
    keys = [f"{len(config)} {'key' if len(config) == 1 else 'keys'} of the config"] if config else []
    added = [*tags, *keys, *summary, *(["its note"] if notes else [])]
    removed = ["verdict removed, since the run is not judged any more"] if stale else []
    return [*([f"{', '.join(added)} added"] if added else []), *removed]


def _stale(run: Any, local: LocalRun) -> list[str]:
    """The keys of a verdict in W&B's summary that does not hold any more. One of another sweep stays."""
    if not local.unjudged_in or run.summary.get(f"{VERDICT}sweep") != local.unjudged_in:
        return []
    return [name for name in run.summary.keys() if name.startswith(VERDICT)]  # noqa: SIM118 (not a dict)


def _new_notes(run: Any, local: LocalRun) -> list[str]:
    """Those that W&B was never given. One that a user has changed or removed there is not added again."""
    given = read_json(_noted(local)).get("notes", ())
    return [note for note in local.notes if note not in given and note not in (run.notes or "")]


def _note_given(local: LocalRun) -> None:
    """Remember what W&B has been given of the notes."""
    path = _noted(local)
    if list(local.notes) != read_json(path).get("notes", []):
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"notes": local.notes}), encoding="utf-8")


def _noted(local: LocalRun) -> Path:
    return Path(local.folder, "wandb", "noted.json")
