"""stages: a run's follow-up steps are part of its plan, and each step is started by the one before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from modal_app.cloud.job import Job, job_name
from modal_app.cloud.settings import Deployment
from modal_app.store.layout import Store
from modal_app.store.step import OutcomeStatus, Step, StepKind
from runner.config.stages import stages_of
from runner.environment.trainer_environment import identity
from runner.errors import SweepError
from runner.executors.local import LocalExecutor
from runner.executors.modal_gpus import one_gpu, placements
from runner.executors.modal_submission import before, mirrored_steps
from runner.executors.modal_work import make_work
from runner.executors.slots import Slots
from runner.follow_up.stage_steps import failed_stages, with_stages
from runner.follow_up.steps import merge_step
from runner.store.ledger import Ledger
from runner.types import Gpu, Plan, Run
from tests.modal_app.deployments import shipped
from tests.runner.builders import finish, plan, run
from tests.runner.executors.fakes import FakeWorkers

MERGED = ("preprocess", "train", "merge")


def staged(stages: Sequence[str], rate: float = 1.0, gpu: Gpu | None = None) -> Run:
    one = run({"adapter": "lora", "learning_rate": rate}, gpu=gpu)
    return replace(one, experiment=replace(one.experiment, stages=tuple(stages)))


def planned(store: Store, *runs: Run) -> Plan:
    return with_stages(plan(runs, store), store)


def execute(made: Plan, workers: FakeWorkers) -> Ledger:
    ledger = Ledger(workers.store, made.sweep)
    ledger.open(made, "axosweep -m")
    LocalExecutor(workers.store, workers, Slots(4), ledger, workers.store.root / "cards").execute(made, lambda: None)
    return ledger


def kinds(workers: FakeWorkers) -> list[str]:
    return [str(step.kind) for step in workers.started]


def test_a_merge_starts_when_its_run_has_finished(store: Store) -> None:
    workers = FakeWorkers(store)
    made = planned(store, staged(MERGED))
    execute(made, workers)
    assert kinds(workers) == ["preprocess", "train", "merge"]
    assert failed_stages(made, store) == {}


def test_each_run_goes_on_alone_and_one_that_fails_takes_its_own_merge_along(store: Store) -> None:
    runs = [staged(MERGED, rate) for rate in (1.0, 2.0)]
    workers = FakeWorkers(store, endings={runs[0].key: OutcomeStatus.FAILED})
    made = planned(store, *runs)
    ledger = execute(made, workers)
    assert [step.run for step in workers.started if step.kind is StepKind.MERGE] == [runs[1].key]
    assert list(failed_stages(made, store)) == [runs[0].key]
    (printed,) = [one for one in ledger.records() if one.kind is StepKind.MERGE and one.status == "failed"]
    assert f"it needs train {runs[0].key}" in printed.message


def test_of_a_finished_run_only_follow_up_steps_are_done(store: Store) -> None:
    one = staged(MERGED)
    finish(store, StepKind.PREPROCESS, one.data_key)
    finish(store, StepKind.TRAIN, one.key)
    workers = FakeWorkers(store)
    made = planned(store, one)
    assert made.has_work
    execute(made, workers)
    assert kinds(workers) == ["merge"]
    assert not planned(store, one).has_work, "requested again, it is done"


@pytest.mark.parametrize("modal", [None, shipped(packages=["axolotl-contribs==1"])])
def test_the_merge_of_a_stage_is_that_of_the_verb(store: Store, modal: Deployment | None) -> None:
    """Otherwise, a model would be merged twice."""
    from runner.follow_up.subjects import Subject

    one = staged(MERGED)
    executor = replace(one.experiment.executor, modal=modal)
    one = replace(one, experiment=replace(one.experiment, executor=executor))
    asked = {"trainer_lock": identity(modal)}  # as run.json has it
    subject = Subject(store, "sweep", one.key, one.data_key, one.config, asked)
    assert planned(store, one).after[0].step.key == merge_step(subject).step.key


def test_preprocess_alone_prepares_the_dataset_and_trains_nothing(store: Store) -> None:
    workers = FakeWorkers(store)
    made = planned(store, staged(["preprocess"]), staged(["preprocess"], 2.0))
    execute(made, workers)
    assert kinds(workers) == ["preprocess"]
    again = planned(store, staged(["preprocess"]))
    assert not again.has_work


def test_on_modal_a_merge_waits_for_its_run_and_is_called_first_when_that_is_done(store: Store) -> None:
    made = planned(store, staged(MERGED), staged(["preprocess"], 2.0))
    (merge,) = made.after
    train, data = f"train/{merge.step.run}", f"preprocess/{merge.step.data_key}"
    work = make_work(made, _job, set())
    assert [job.name for job in work.first] == [data]
    assert [job.name for job in work.waiting[data]] == [train], "the other run only wants the dataset"
    assert [job.name for job in work.waiting[train]] == [f"merge/{merge.step.key}"]
    assert work.waiting[data][0].awaited, "its call adds what waits, whichever call trains it"
    later = make_work(made, _job, {data.replace("/", "-"), train.replace("/", "-")})
    assert [job.name for job in later.first] == [f"merge/{merge.step.key}"]


def test_preprocess_alone_is_called_on_modal_and_nothing_waits_for_it(store: Store) -> None:
    work = make_work(planned(store, staged(["preprocess"])), _job, set())
    assert [job.function for job in work.first] == ["preprocess"]
    assert list(work.waiting.values()) == [[]]


def test_a_mirror_knows_that_a_merge_goes_on_while_its_dataset_is_prepared(store: Store) -> None:
    steps = mirrored_steps(planned(store, staged(MERGED)))
    (merge,) = [step for step in steps if step.kind is StepKind.MERGE]
    assert [name.partition("/")[0] for name in before(merge, steps)] == ["train", "preprocess"]


def test_follow_up_steps_of_a_finished_run_have_a_place_on_modal(store: Store) -> None:
    one = staged(MERGED, gpu=Gpu("h100", 4))
    finish(store, StepKind.TRAIN, one.key)
    made = planned(store, one)
    placed = placements(made, one.experiment.executor)[one.key]
    assert one_gpu(placed).variant.gpus == ("H100",)


def test_a_full_fine_tune_has_nothing_to_merge_and_says_so_before_it_trains(store: Store) -> None:
    whole = run({"learning_rate": 1.0})
    with pytest.raises(SweepError, match="nothing to merge"):
        planned(store, replace(whole, experiment=replace(whole.experiment, stages=MERGED)))


def test_an_evaluation_comes_after_the_merge_before_it(store: Store) -> None:
    one = run({"adapter": "lora", "val_set_size": 0.1})
    made = planned(store, replace(one, experiment=replace(one.experiment, stages=(*MERGED, "eval"))))
    workers = FakeWorkers(store)
    execute(made, workers)
    assert kinds(workers) == ["preprocess", "train", "merge", "evaluate"]
    assert made.after[1].needs == (StepKind.MERGE, made.after[0].step.key)


def test_an_evaluation_without_held_out_rows_is_refused_before_anything_trains(store: Store) -> None:
    with pytest.raises(SweepError, match="has no held-out rows"):
        planned(store, staged(("preprocess", "train", "eval")))


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (["preprocess", "trian"], "Did you mean train"),
        (["train", "preprocess"], "in this order"),
        (["preprocess", "train", "train"], "each once"),
        (["preprocess", "merge"], "leaves out train"),
        (["train"], "leaves out preprocess"),
        (None, "stages has no None"),
    ],
)
def test_stages_that_cannot_be_are_refused(asked: object, says: str) -> None:
    with pytest.raises(SweepError, match=says):
        stages_of(asked)


def _job(step: Step) -> Job:
    return Job(job_name(step.kind, step.key), step.sweep, "app", str(step.kind), "claims", "c", "r")
