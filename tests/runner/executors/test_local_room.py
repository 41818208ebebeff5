"""How many runs train on this machine at a time, and on which of its GPUs."""

import json
import multiprocessing
from pathlib import Path

import pytest

from modal_app.process.threads import usable_cores
from modal_app.store.layout import Store
from modal_app.store.step import OutcomeStatus, Step, StepKind
from runner.executors.slots import Slots
from runner.types import Gpu
from tests.runner.builders import finish, plan, run
from tests.runner.executors.fakes import FakeWorkers, Rival
from tests.runner.executors.local_launch import Begin, after, events, execute, gpus, runs_of


def at_a_time(workers: FakeWorkers) -> list[int]:
    """Ranks that trained at the same moment."""
    return [sum(step.processes for step in together) for together in workers.together if together]


def test_two_cores_train_two_runs_of_one_rank_at_a_time(store: Store) -> None:
    workers = FakeWorkers(store)
    execute(plan(runs_of(5), store), workers)
    assert max(at_a_time(workers)) == 2
    assert at_a_time(workers).count(2) == 4


def test_a_run_of_two_ranks_has_both_cores_to_itself(store: Store) -> None:
    workers = FakeWorkers(store)
    execute(plan([*runs_of(2), *runs_of(2, ranks=2)], store), workers)
    assert {len(together) for together in workers.together if any(step.processes == 2 for step in together)} == {1}


def test_a_run_of_more_ranks_than_cores_is_run_alone(store: Store) -> None:
    workers = FakeWorkers(store)
    records = execute(plan([*runs_of(2), *runs_of(1, ranks=3)], store), workers)
    assert all(events(one)[-1] == "succeeded" for one in records.values())
    assert {len(together) for together in workers.together if any(step.processes == 3 for step in together)} == {1}


def test_parallel_1_runs_one_step_at_a_time(store: Store) -> None:
    workers = FakeWorkers(store)
    execute(plan(runs_of(4), store), workers, Slots(8, parallel=1))
    assert {len(together) for together in workers.together if together} == {1}


def cards(step: Step) -> list[str]:
    return step.environment["CUDA_VISIBLE_DEVICES"].split(",")


def test_a_rank_on_a_card_has_the_cores_of_its_card(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MKL_NUM_THREADS", "3")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    workers = FakeWorkers(store)
    execute(plan(runs_of(2, 2, "h100"), store), workers, gpus(2 * usable_cores()))
    training = [step for step in workers.started if step.kind is StepKind.TRAIN]
    assert {step.environment["OMP_NUM_THREADS"] for step in training} == {"1"}, "of half a core each, not of them all"
    assert {step.environment["MKL_NUM_THREADS"] for step in training} == {"3"}


def test_gpus_are_partitioned(store: Store) -> None:
    workers = FakeWorkers(store)
    runs = [*runs_of(2, 2, "h100"), *runs_of(4, 1, "h100"), *runs_of(2, 4, "h100")]
    execute(plan(runs, store), workers, gpus(4))
    training = [step for step in workers.started if step.kind is StepKind.TRAIN]
    assert [len(cards(step)) for step in training] == [step.processes for step in training]
    for together in workers.together:
        taken = [card for step in together if step.kind is StepKind.TRAIN for card in cards(step)]
        assert len(taken) == len(set(taken))
        assert set(taken) <= {"0", "1", "2", "3"}
    assert max(at_a_time(workers)) == 4


def test_preprocessing_is_given_no_gpu_and_takes_none_from_a_run(store: Store) -> None:
    workers = FakeWorkers(store)
    runs = [run({"sequence_len": length}, gpu=Gpu("h100", 1)) for length in (1, 2)]
    finish(store, StepKind.PREPROCESS, runs[0].data_key)
    execute(plan(runs, store), workers, gpus(1))
    preprocess = next(step for step in workers.started if step.kind is StepKind.PREPROCESS)
    assert "CUDA_VISIBLE_DEVICES" not in preprocess.environment
    assert {step.kind for step in workers.together[0]} == {StepKind.PREPROCESS, StepKind.TRAIN}


def test_the_gpus_of_a_run_that_another_launcher_took_are_free_again(store: Store, rival: Begin) -> None:
    taken, other = runs_of(2, 2, "h100")
    finish(store, StepKind.PREPROCESS, taken.data_key)
    rivals: list[Rival] = []

    def before_claim(step: Step) -> None:
        if step.key == taken.key:
            rivals.append(rival(step.kind, step.key))

    workers = FakeWorkers(store, before_claim=before_claim)
    watch = after(20, lambda: rivals[0].end(OutcomeStatus.SUCCEEDED))
    execute(plan([taken, other], store), workers, gpus(2), watch)
    assert [cards(step) for step in workers.started] == [["0", "1"], ["0", "1"]]


@pytest.mark.parametrize("follows", [True, False])
@pytest.mark.parametrize(("ranks", "given"), [(1, ["1"]), (2, ["0", "1"])])
def test_a_card_that_a_run_of_another_launcher_uses_is_given_to_no_run(
    store: Store, rival: Begin, follows: bool, ranks: int, given: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a launcher that was killed, or one of another sweep. A run that needs this card waits for it."""
    theirs, (ours,) = run({"seed": 7}, gpu=Gpu("h100", 1)), runs_of(1, ranks, "h100")
    finish(store, StepKind.PREPROCESS, theirs.data_key)
    finish(store, StepKind.PREPROCESS, ours.data_key)
    held = rival(StepKind.TRAIN, theirs.key)
    (attempt,) = store.folder(StepKind.TRAIN, theirs.key).attempts()
    attempt.step.write_text(json.dumps({"environment": {"CUDA_VISIBLE_DEVICES": "0"}}))
    workers, planned = FakeWorkers(store), plan([theirs, ours] if follows else [ours], store)
    execute(planned, workers, gpus(2), watch=after(20, lambda: held.end(OutcomeStatus.SUCCEEDED)))
    assert [cards(step) for step in workers.started] == [given]
    assert ("Waiting for GPUs that runs of other launches use." in capsys.readouterr().err) is (ranks == 2)


def test_a_card_is_taken_before_its_worker_has_claimed_its_run(store: Store, tmp_path: Path) -> None:
    """By another launch, of the same store or of another one, until its last process has been killed."""
    theirs, ours = runs_of(2, 1, "h100")
    for one in (store, other := Store(tmp_path / "other")):
        finish(one, StepKind.PREPROCESS, ours.data_key)
    here, there = FakeWorkers(store), FakeWorkers(other, unborn=frozenset({theirs.key}))
    fork = multiprocessing.get_context("fork")
    line, far = fork.Pipe()
    watch = after(1, lambda: far.send("has started"))
    launch = fork.Process(target=execute, args=(plan([theirs], other), there, gpus(2), watch, store.root / "cards"))
    launch.start()
    try:
        assert line.recv() == "has started"
        execute(plan([ours], store), here, gpus(2))
    finally:
        launch.kill()
        launch.join()
    execute(plan([theirs], store), here, gpus(2))
    assert [cards(step) for step in here.started] == [["1"], ["0"]]
