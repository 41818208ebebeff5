"""What a client lets Modal watch: the remaining jobs, what each waits for, and the budget."""

from __future__ import annotations

from dataclasses import replace

from modal_app.cloud.job import Job, job_name
from modal_app.store.layout import Store
from modal_app.store.step import Share, Step, StepKind
from runner.executors.modal_notices import watched
from runner.executors.modal_work import make_work
from tests.modal_app.deployments import shipped
from tests.runner.builders import finish_run, plan, run


def job(step: Step) -> Job:
    return Job(job_name(step.kind, step.key), step.sweep, "app", step.kind.value, "claims", "cache", "runs")


def test_the_jobs_that_are_left_are_watched_with_what_they_wait_for(store: Store) -> None:
    finished, *left = runs = [run({"learning_rate": rate}) for rate in (1e-3, 2e-3, 3e-3)]
    finish_run(store, finished, {0: 1.0})
    store.manifest(finished.data_key).unlink()
    made = plan(runs, store)
    shared = tuple(replace(one, step=replace(one.step, share=Share(3.0, 60.0))) for one in made.runs)
    made = replace(made, runs=shared)
    found = watched(made, make_work(made, job, set()), {}, shipped(), "MY_NOTIFY_URL", 8.0)
    data = job_name(StepKind.PREPROCESS, finished.data_key)
    assert found.needs == {data: [], **{job_name(StepKind.TRAIN, one.key): [data] for one in left}}
    assert (found.finished, found.budget, found.set_aside, found.earlier) == (1, 8.0, 2.0, {})
