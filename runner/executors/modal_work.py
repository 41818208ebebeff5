"""A plan -> its jobs on Modal: which are called first, and which wait for which. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

from modal_app.cloud.job import Job, job_name, mark_name
from modal_app.store.hub import FETCH, fetch_names
from modal_app.store.step import Step, StepKind
from runner.types import Plan


@dataclass(frozen=True, slots=True)
class Work:
    steps: Mapping[str, Step]
    """Every step of the plan, finished or not, by the name of its job: a call may find its step done."""
    first: Sequence[Job]
    """The jobs that wait for nothing."""
    waiting: Mapping[str, Sequence[Job]]
    """Job name -> the jobs that wait for it."""
    halved: Sequence[Job] = ()
    """The jobs that may stop at a rung and go on later."""

    @property
    def names(self) -> set[str]:
        """The names of all jobs that are still to be done."""
        return {job.name for jobs in (self.first, *self.waiting.values()) for job in jobs}


def make_work(plan: Plan, job_of: Callable[[Step], Job], done: Set[str]) -> Work:
    """The order: first downloads from the hub, then the datasets that need them, then their runs, then the runs'
    follow-up steps. A run that reads its own data waits for downloads only. `done`: the marks of finished jobs."""
    building = _JobBuilder(job_of, done, {job_name(*needs) for one in plan.after if (needs := one.needs)})
    building.steps |= {job_name(one.step.kind, one.step.key): one.step for one in plan.runs}
    pending = {planned.run.key: planned for planned in plan.pending}
    for dataset in plan.datasets:
        building.steps[job_name(dataset.step.kind, dataset.step.key)] = dataset.step
        readers = [pending[key] for key in dataset.runs if key in pending]
        ready = building.undone(one.step for one in readers if one.trains)
        preprocess = replace(job_of(dataset.step), awaited=True)
        if (ready or not all(one.trains for one in readers)) and mark_name(preprocess.name) not in done:
            building.waiting[preprocess.name], ready = ready, [preprocess]
        if ready:
            building.begin(ready, dataset.step)
    for run in pending.values():
        if run.step.own_data and run.trains and (ready := building.undone([run.step])):
            building.begin(ready, run.step)
    for planned in plan.after:
        building.steps[job_name(planned.step.kind, planned.step.key)] = planned.step
        ready = [] if planned.done else building.undone([planned.step])
        before = job_name(*planned.needs) if planned.needs else ""
        if ready and before in building.to_do:
            building.waiting.setdefault(before, []).extend(ready)
        elif ready:
            building.begin(ready, planned.step)
    halved = building.undone(one.step for one in pending.values() if one.trains and one.step.rungs)
    return Work(building.steps, building.first, building.waiting, halved)


@dataclass(slots=True)
class _JobBuilder:
    """Work under construction."""

    job_of: Callable[[Step], Job]
    done: Set[str]
    awaited: set[str]
    """The jobs that a follow-up step needs."""
    steps: dict[str, Step] = field(default_factory=dict)
    first: list[Job] = field(default_factory=list)
    waiting: dict[str, list[Job]] = field(default_factory=dict)
    _fetches: dict[str, Job] = field(default_factory=dict)

    @property
    def to_do(self) -> set[str]:
        return Work(self.steps, self.first, self.waiting).names

    def undone(self, steps: Iterable[Step]) -> list[Job]:
        jobs = [self.job_of(step) for step in steps]
        jobs = [replace(job, awaited=True) if job.name in self.awaited else job for job in jobs]
        return [job for job in jobs if mark_name(job.name) not in self.done]

    def begin(self, ready: list[Job], step: Step) -> None:
        """Call these first, or after the downloads from the hub that their step's config still needs."""
        on_cpu = replace(step, kind=StepKind.PREPROCESS)
        for name in reversed([one for one in fetch_names(step.config) if mark_name(one) not in self.done]):
            self.steps.setdefault(name, on_cpu)
            fetch = replace(self.job_of(on_cpu), name=name, function=FETCH, options={}, awaited=True)
            fetch = self._fetches.setdefault(name, fetch)
            waiting = self.waiting.setdefault(name, [])
            waiting.extend(job for job in ready if job not in waiting)
            ready = [fetch]
        self.first += [job for job in ready if job not in self.first]
