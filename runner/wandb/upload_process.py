"""The process that knows W&B: uploads offline runs, then adds what W&B still lacks. Jobs on stdin, answers on stdout.

`wandb sync` uploads what an offline run has written, once. A killed run's file lacks what was not flushed, and an
interrupted upload may have left some out: metrics.jsonl has it all, so W&B's history is held against that.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import wandb
import wandb.errors

from runner.wandb.messages import MOST_ROWS, REFUSED, STEP, Answer, Job

EMPTY_BYTES = 7
"""A file that was killed before its first flush has its header only."""
OURS = frozenset({"step", "attempt", "time", "seconds", "tokens", "not_finite"})
"""Of a line in metrics.jsonl, what is not a metric that the trainer logged."""


def main() -> int:
    """Returns REFUSED, with the reason in place of the answers, when W&B lets nobody in."""
    os.environ["WANDB_SILENT"] = "true"
    answers, sys.stdout = sys.stdout, sys.stderr  # W&B may print
    jobs = [Job(**raw) for raw in json.load(sys.stdin)]
    try:
        api = signed_in()
    except wandb.errors.Error as error:
        answers.write(str(error))
        return REFUSED
    fragments = {job.key: _fragments(job) for job in jobs}
    before = {key: [one for one in found if not _is_uploaded(one)] for key, found in fragments.items()}
    _wandb_sync([one for found in before.values() for one in found])
    json.dump([asdict(_answer(api, job, before[job.key])) for job in jobs], answers)
    return 0


def signed_in() -> Any:
    """The SDK's reader. Raises wandb.errors.Error when W&B does not take the key."""
    api = wandb.Api()
    if api.viewer is None:
        raise wandb.errors.AuthenticationError("W&B does not know this key.")
    return api


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl as W&B's callback would have logged them; of a step that came twice, the last.

    Evaluations and training losses are rows of their own, as they are logged.
    """
    rows: dict[tuple[int, bool], dict[str, Any]] = {}
    for text in path.read_text(encoding="utf-8").split("\n") if path.exists() else ():
        try:
            line = json.loads(text)
        except ValueError:
            continue  # torn by a kill
        step, evaluation = line["step"], "eval_loss" in line
        rows.pop((step, evaluation), None)
        rows[step, evaluation] = dict(_named(line)) | {STEP: step}
    return [rows[key] for key in sorted(rows, key=lambda key: key[0])]


def missing(rows: Sequence[Mapping[str, Any]], history: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rows whose loss W&B does not have at their step."""
    known = {(row[STEP], name) for row in history if STEP in row for name in ("train/loss", "eval/loss") if name in row}
    return [row for row in rows if (row[STEP], "eval/loss" if "eval/loss" in row else "train/loss") not in known]


def _named(line: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in line.items():
        if name not in OURS:
            told = float("nan") if value is None else value
            yield (f"eval/{name.removeprefix('eval_')}" if name.startswith("eval_") else f"train/{name}"), told


def _fragments(job: Job) -> list[Path]:
    """The offline runs that its attempts have left, oldest first; those that hold something."""
    found = sorted(Path(job.folder, "wandb").glob(f"offline-run-*-{job.id}/run-{job.id}.wandb"))
    return [one for one in found if one.stat().st_size > EMPTY_BYTES]


def _is_uploaded(fragment: Path) -> bool:
    """W&B's own marks: uploaded to its end, or (it was cut by a kill) as far as it can be read."""
    return any(fragment.with_name(f"{fragment.name}.{mark}").exists() for mark in ("synced", "syncstate"))


def _wandb_sync(fragments: Sequence[Path]) -> None:
    if not fragments:
        return
    command = [sys.executable, "-P", "-m", "wandb", "sync", *(str(one.parent) for one in fragments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if not all(map(_is_uploaded, fragments)):
        print(done.stdout, file=sys.stderr)


def _answer(api: Any, job: Job, new: Sequence[Path]) -> Answer:
    """The process boundary of one run: what fails for it does not stop the others."""
    failed = [one for one in new if not _is_uploaded(one)]
    if failed:
        return Answer(job.key, f"{len(failed)} offline parts were not taken by W&B: see above", failed=True)
    did = [f"{len(new)} offline {'part' if len(new) == 1 else 'parts'} uploaded"] if new else []
    try:
        did += _completed(api, job)
    except (wandb.errors.Error, ValueError, OSError) as error:
        return Answer(job.key, f"W&B: {error}", failed=True)
    return Answer(job.key, ", ".join(did) or "up to date")


def _completed(api: Any, job: Job) -> list[str]:
    rows = rows_of(Path(job.folder, "metrics.jsonl"))
    if len(rows) > MOST_ROWS:
        did = [f"more than {MOST_ROWS} rows: not compared with metrics.jsonl"]
    else:
        there = _run(api, job)
        history = [] if there is None else list(there.history(samples=MOST_ROWS, pandas=False))
        lacking = missing(rows, history)
        if lacking:
            _add(job, rows, lacking, new=there is None)
        did = [f"{len(lacking)} of {len(rows)} rows added from metrics.jsonl"] if lacking else []
    run = _run(api, job)
    return did + (_amended(run, job) if run is not None else [])


def _run(api: Any, job: Job) -> Any:
    """None where W&B has no such run."""
    with contextlib.suppress(wandb.errors.CommError, ValueError):
        api.flush()  # it would answer from what it has read before
        return api.run(job.path)
    return None


def _add(job: Job, rows: Sequence[Mapping[str, Any]], lacking: Sequence[Mapping[str, Any]], *, new: bool) -> None:
    """Continue the run, or make it, and log what it lacks. Its summary is the last value of each metric again.

    Of a run that is there, name and tags are W&B's own: somebody may have changed them.
    """
    run: Any = wandb.init(
        entity=job.entity or None, project=job.project, id=job.id, group=job.group, job_type="train",
        name=job.name if new else None, tags=[*job.tags, *job.sweeps] if new else None, resume="allow", mode="online",
        settings=wandb.Settings(disable_git=True, console="off", x_disable_stats=True),
    )  # fmt: skip
    run.config.update(dict(job.params), allow_val_change=True)
    run.define_metric(STEP)
    run.define_metric("*", step_metric=STEP, step_sync=True)
    for row in lacking:
        run.log(dict(row))
    for row in rows:
        run.summary.update(dict(row))
    run.finish(exit_code=0 if job.finished else 1)


def _amended(run: Any, job: Job) -> list[str]:
    """What later sweeps and this machine know beyond the run itself: tags, parameters, seconds and dollars."""
    tags = [tag for tag in job.sweeps if tag not in run.tags]
    params = {name: value for name, value in job.params.items() if name not in run.config}
    summary = {name: value for name, value in job.summary.items() if run.summary.get(name) != value}
    if not (tags or params or summary):
        return []
    run.tags.extend(tags)
    run.config.update(params)
    run.summary.update(summary)
    run.update()
    return [f"{', '.join([*tags, *params, *summary])} noted"]


if __name__ == "__main__":
    sys.exit(main())
