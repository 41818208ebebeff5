"""A plan -> what is called on Modal: every job, which are called first, and which wait for which. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from modal_app.hub import FETCH, fetch_names
from modal_app.remote import Job, mark_name
from modal_app.step import Step
from runner.types import Plan


@dataclass(frozen=True, slots=True)
class Work:
    steps: Mapping[str, Step]
    """Every step of the plan, finished or not, by the name of its job: a call may find its step done."""
    first: Sequence[Job]
    """What waits for nothing."""
    waiting: Mapping[str, Sequence[Job]]
    """Job name -> the jobs that wait for it."""

    @property
    def names(self) -> set[str]:
        """Of all jobs that are still to be done."""
        return {job.name for jobs in (self.first, *self.waiting.values()) for job in jobs}


def make_work(plan: Plan, job_of: Callable[[Step], Job], done: set[str]) -> Work:
    """What is on the hub comes before the datasets that need it, a dataset before its runs. `done`: what is marked."""
    steps: dict[str, Step] = {job_name(planned.step): planned.step for planned in plan.runs}
    fetches: dict[str, Job] = {}
    first: list[Job] = []
    waiting: dict[str, list[Job]] = {}
    pending = {planned.run.key: planned.step for planned in plan.pending}
    for dataset in plan.datasets:
        steps[job_name(dataset.step)] = dataset.step
        ready = [job_of(pending[key]) for key in dataset.runs if key in pending]
        ready = [job for job in ready if mark_name(job.name) not in done]
        if not ready:
            continue
        preprocess = replace(job_of(dataset.step), awaited=True)
        if mark_name(preprocess.name) not in done:
            waiting[preprocess.name], ready = ready, [preprocess]
        missing = [name for name in fetch_names(dataset.step.config) if mark_name(name) not in done]
        for name in reversed(missing):
            steps[name] = dataset.step
            fetch = fetches.setdefault(name, replace(preprocess, name=name, function=FETCH, options={}))
            waiting.setdefault(name, []).extend(job for job in ready if job not in waiting[name])
            ready = [fetch]
        first += [job for job in ready if job not in first]
    return Work(steps, first, waiting)


def job_name(step: Step) -> str:
    return f"{step.kind}/{step.key}"
