"""The files of a job on the mounted Volumes: where they are, what they say of its end, and its mark in `done/`."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import modal

from modal_app.cloud import attempts, volumes
from modal_app.cloud.job import DONE, FETCHED, RUNS_MOUNT, Job, mark_name, open_store
from modal_app.cloud.meter import records_of
from modal_app.store.hub import FETCH
from modal_app.store.layout import StepFolder
from modal_app.store.state import read_outcome
from modal_app.store.step import Outcome, StepKind, write_atomically


def folder_of(job: Job) -> StepFolder:
    if job.function == FETCH:
        path = RUNS_MOUNT / FETCHED / mark_name(job.name)
        return StepFolder(path, done=_mark(job))
    step = job.read_step()
    return open_store().folder(step.kind, step.key)


def volumes_of(job: Job) -> list[modal.Volume]:
    """The Volumes that a step writes to, in the order in which they are committed: the one with the marks is last.

    The trainers' cache is mounted read-only.
    """
    writes_cache = job.function == FETCH or job.read_step().kind is StepKind.PREPROCESS
    names = [job.cache_volume, job.runs_volume] if writes_cache else [job.runs_volume]
    return [volumes.named(name) for name in names]


def read_ending(job: Job, call: str) -> tuple[Outcome, StepFolder] | None:
    """How a call has ended its run, with the facts, and the run's folder."""
    folder = folder_of(job)
    ended = attempts.failed(folder, call) or attempts.at_rung(folder, call) or attempts.newest(folder)
    result = folder.done if folder.done.exists() or ended is None else ended.result
    outcome = read_outcome(result)
    return None if outcome is None else (outcome, folder)


def recorded_calls(job: Job) -> list[str]:
    """The calls whose containers have begun the job, as far as the Volume shows, and have not recorded their end."""
    return sorted({one.call for one in records_of(folder_of(job)) if not one.ended})


def say_not_continued(job: Job, call: str, why: str) -> None:
    """Add to the result of this call's newest attempt why no other call continues it."""
    attempt = attempts.newest_of(folder_of(job), call)
    if attempt is None or not attempt.result.exists():
        return
    outcome = Outcome.from_json(attempt.result.read_text(encoding="utf-8"))
    if why not in outcome.message:
        write_atomically(attempt.result, replace(outcome, message=f"{outcome.message}; {why}").to_json())
        volumes.commit(volumes_of(job))


def mark_done(job: Job) -> None:
    """Note on the runs Volume that the job has succeeded, unless that is noted."""
    mark = _mark(job)
    if not mark.exists():
        mark.parent.mkdir(exist_ok=True)
        write_atomically(mark, json.dumps({"at": time.time(), "container": os.environ.get("MODAL_TASK_ID")}))


def _mark(job: Job) -> Path:
    return RUNS_MOUNT / DONE / mark_name(job.name)
