import json
import os
import signal
from collections.abc import Callable, Iterator

import pytest

from modal_app.process.threads import usable_cores
from modal_app.store.layout import Store
from modal_app.store.state import Phase, observe
from modal_app.store.step import Device, OutcomeStatus, Step, StepKind
from runner.console import interrupts
from runner.executors.local import LocalExecutor, Watch
from runner.executors.slots import Slots, machine_slots
from runner.store.ledger import Ledger, Record
from runner.types import Gpu, Plan, Run
from tests.runner.builders import finish, plan, run
from tests.runner.counting_store import CountingStore
from tests.runner.executors.fakes import FakeWorkers, Rival

TWO_CORES = Slots(2)


def gpus(number: int) -> Slots:
    return Slots(number, cards=tuple(map(str, range(number))))


def runs_of(count: int, ranks: int = 1, gpu: str = "cpu") -> list[Run]:
    return [run({"learning_rate": number}, gpu=Gpu(gpu, ranks)) for number in range(count)]


def execute(
    planned: Plan, workers: FakeWorkers, slots: Slots = TWO_CORES, watch: Watch = lambda: None
) -> dict[str, list[Record]]:
    """Run the plan; returns the resulting records, by step."""
    ledger = Ledger(workers.store, planned.sweep)
    ledger.open(planned, "axosweep -m")
    try:
        LocalExecutor(workers.store, workers, slots, ledger).execute(planned, watch)
    finally:
        assert workers.closed
    return recorded(ledger)


def recorded(ledger: Ledger) -> dict[str, list[Record]]:
    by_step: dict[str, list[Record]] = {}
    for record in ledger.records()[1:]:
        by_step.setdefault(record.key, []).append(record)
    return by_step


def events(records: list[Record]) -> list[str]:
    return [record.status or str(record.event) for record in records]


def names(steps: list[Step]) -> list[str]:
    return [step.key for step in steps]


@pytest.fixture
def rival(store: Store) -> Iterator[Callable[[StepKind, str], Rival]]:
    rivals: list[Rival] = []

    def begin(kind: StepKind, key: str) -> Rival:
        rivals.append(Rival(store, kind, key))
        return rivals[-1]

    yield begin
    for one in rivals:
        one.kill()


def after(calls: int, what: Callable[[], object]) -> Watch:
    """Do something once, while the executor waits."""
    left = calls

    def watch() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            what()

    return watch


def test_each_dataset_is_prepared_once_and_before_the_runs_that_read_it(store: Store) -> None:
    runs = [*runs_of(3), run({"sequence_len": 512})]
    workers = FakeWorkers(store)
    records = execute(plan(runs, store), workers, Slots(8))
    order = names(workers.started)
    assert sorted(order) == sorted({one.data_key for one in runs} | {one.key for one in runs})
    assert all(order.index(one.data_key) < order.index(one.key) for one in runs)
    assert all(
        one.data_key not in names(list(together)) or one.key not in names(list(together))
        for together in workers.together
        for one in runs
    )
    assert {tuple(events(one)) for one in records.values()} == {("submitted", "started", "succeeded")}


def test_nothing_is_started_for_what_is_done(store: Store) -> None:
    first, second = runs_of(2)
    finish(store, StepKind.PREPROCESS, first.data_key)
    finish(store, StepKind.TRAIN, first.key)
    workers = FakeWorkers(store)
    execute(plan([first, second], store), workers)
    assert names(workers.started) == [second.key]


def test_a_dataset_that_only_finished_runs_read_is_not_prepared_again(store: Store) -> None:
    read, other = run({"sequence_len": 1}), run({"sequence_len": 2})
    finish(store, StepKind.TRAIN, read.key)
    workers = FakeWorkers(store)
    execute(plan([read, other], store), workers)
    assert names(workers.started) == [other.data_key, other.key]


def test_a_run_is_not_looked_at_while_there_is_no_room_for_it(store: Store) -> None:
    first, *others = runs_of(12)
    counting = CountingStore(store.root)
    execute(plan([first, *others], store), FakeWorkers(counting), Slots(1))
    assert {counting.asked[one.key] for one in others} == {counting.asked[first.key]}


def test_a_step_that_ended_between_planning_and_running_is_skipped(store: Store) -> None:
    (one,) = runs_of(1)
    planned = plan([one], store)
    finish(store, StepKind.PREPROCESS, one.data_key)
    records = execute(planned, FakeWorkers(store))
    assert events(records[one.data_key]) == ["skipped"]
    assert events(records[one.key]) == ["submitted", "started", "succeeded"]


@pytest.mark.parametrize("status", [OutcomeStatus.FAILED, OutcomeStatus.LOST, OutcomeStatus.STOPPED])
def test_a_run_that_does_not_succeed_stops_no_other_and_is_not_tried_again(store: Store, status: OutcomeStatus) -> None:
    bad, *good = runs_of(4)
    workers = FakeWorkers(store, endings={bad.key: status})
    records = execute(plan([bad, *good], store), workers)
    assert events(records[bad.key]) == ["submitted", "started", status]
    assert all(events(records[one.key])[-1] == "succeeded" for one in good)
    assert len(workers.started) == 5


@pytest.mark.parametrize("status", [OutcomeStatus.FAILED, OutcomeStatus.LOST])
def test_a_dataset_that_fails_blocks_only_its_readers_and_says_so(store: Store, status: OutcomeStatus) -> None:
    blocked = [run({"sequence_len": 1, "learning_rate": rate}) for rate in (1, 2)]
    free = run({"sequence_len": 2})
    workers = FakeWorkers(store, endings={blocked[0].data_key: status})
    records = execute(plan([*blocked, free], store), workers)
    assert names(workers.started) == [blocked[0].data_key, free.data_key, free.key]
    for one in blocked:
        (record,) = records[one.key]
        assert (record.status, record.reason) == ("failed", "data")
        assert blocked[0].data_key in record.message
    assert events(records[free.key])[-1] == "succeeded"


def test_a_failed_run_of_an_earlier_launch_is_tried_again(store: Store) -> None:
    (one,) = runs_of(1)
    finish(store, StepKind.PREPROCESS, one.data_key)
    finish(store, StepKind.TRAIN, one.key, OutcomeStatus.FAILED, message="earlier")
    records = execute(plan([one], store), FakeWorkers(store))
    assert [record.attempt for record in records[one.key]] == [None, 2, 2]
    assert events(records[one.key]) == ["submitted", "started", "succeeded"]


def test_a_worker_that_dies_before_it_begins_is_lost_and_not_given_an_older_outcome(store: Store) -> None:
    (one,) = runs_of(1)
    finish(store, StepKind.PREPROCESS, one.data_key)
    finish(store, StepKind.TRAIN, one.key, OutcomeStatus.FAILED, message="earlier")
    records = execute(plan([one], store), FakeWorkers(store, stillborn=frozenset({one.key})))
    assert events(records[one.key]) == ["submitted", "lost"]
    assert records[one.key][-1].message == "its worker ended before the step started (code 1)"


Begin = Callable[[StepKind, str], Rival]


def test_a_step_that_another_launcher_works_on_is_followed_and_not_started(store: Store, rival: Begin) -> None:
    (one,) = runs_of(1)
    workers = FakeWorkers(store)
    held = rival(StepKind.PREPROCESS, one.data_key)
    records = execute(plan([one], store), workers, watch=after(5, lambda: held.end(OutcomeStatus.SUCCEEDED)))
    assert names(workers.started) == [one.key]
    assert events(records[one.data_key]) == ["followed", "succeeded"]
    assert records[one.data_key][0].pid == held.process.pid


def test_a_followed_step_that_fails_is_not_run_again(store: Store, rival: Begin) -> None:
    (one,) = runs_of(1)
    finish(store, StepKind.PREPROCESS, one.data_key)
    workers = FakeWorkers(store)
    held = rival(StepKind.TRAIN, one.key)
    records = execute(plan([one], store), workers, watch=after(5, lambda: held.end(OutcomeStatus.FAILED)))
    assert workers.started == []
    assert events(records[one.key]) == ["followed", "failed"]
    assert records[one.key][-1].message == "the rival's"


@pytest.mark.parametrize("leave", [lambda held: held.kill(), lambda held: held.end(OutcomeStatus.STOPPED)])
def test_a_followed_step_whose_worker_dies_or_stops_is_taken_over(
    store: Store, rival: Begin, leave: Callable[[Rival], None]
) -> None:
    (one,) = runs_of(1)
    finish(store, StepKind.PREPROCESS, one.data_key)
    workers = FakeWorkers(store)
    held = rival(StepKind.TRAIN, one.key)
    records = execute(plan([one], store), workers, watch=after(5, lambda: leave(held)))
    assert names(workers.started) == [one.key]
    assert events(records[one.key]) == ["followed", "submitted", "started", "succeeded"]
    assert records[one.key][-1].attempt == 2


@pytest.mark.parametrize("status", [OutcomeStatus.SUCCEEDED, OutcomeStatus.FAILED])
def test_a_worker_that_finds_its_step_just_taken_is_not_recorded_as_started(
    store: Store, rival: Begin, status: OutcomeStatus
) -> None:
    """Two launches at the same moment: one of them trains, the other follows and ends like it."""
    (one,) = runs_of(1)
    finish(store, StepKind.PREPROCESS, one.data_key)
    rivals: list[Rival] = []
    workers = FakeWorkers(store, before_claim=lambda step: rivals.append(rival(step.kind, step.key)))
    records = execute(plan([one], store), workers, watch=after(6, lambda: rivals[0].end(status)))
    assert names(workers.started) == [one.key]
    assert events(records[one.key]) == ["submitted", "followed", status]


def test_what_is_followed_takes_no_room(store: Store, rival: Begin) -> None:
    first, second = runs_of(2, ranks=2)
    finish(store, StepKind.PREPROCESS, first.data_key)
    workers = FakeWorkers(store)
    held = rival(StepKind.TRAIN, first.key)
    execute(plan([first, second], store), workers, watch=after(20, lambda: held.end(OutcomeStatus.SUCCEEDED)))
    assert observe(store, StepKind.TRAIN, second.key).phase is Phase.SUCCEEDED
    assert names(workers.started) == [second.key]


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


def interrupt() -> None:
    raise KeyboardInterrupt


def interrupted(planned: Plan, workers: FakeWorkers, slots: Slots = TWO_CORES) -> dict[str, list[Record]]:
    with pytest.raises(KeyboardInterrupt):
        execute(planned, workers, slots, watch=after(4, interrupt))
    return recorded(Ledger(workers.store, planned.sweep))


def test_ctrl_c_asks_workers_to_stop_and_records_that_they_did(store: Store) -> None:
    runs = runs_of(3)
    finish(store, StepKind.PREPROCESS, runs[0].data_key)
    workers = FakeWorkers(store, endless=frozenset(one.key for one in runs))
    records = interrupted(plan(runs, store), workers)
    assert workers.signals == [(one.key, signal.SIGTERM) for one in runs[:2]]
    assert [events(records[one.key]) for one in runs[:2]] == [["submitted", "started", "stopped"]] * 2
    assert runs[2].key not in records


def test_ctrl_c_stops_a_worker_also_if_that_cannot_be_noted(store: Store) -> None:
    """A full disk, which is a reason to stop."""
    (one,) = runs_of(1)
    finish(store, StepKind.PREPROCESS, one.data_key)
    workers = FakeWorkers(store, endless=frozenset({one.key}))

    def interrupt_on_full_disk() -> None:
        store.folder(StepKind.TRAIN, one.key).attempt(1).stop.mkdir()
        interrupt()

    with pytest.raises(KeyboardInterrupt):
        execute(plan([one], store), workers, watch=after(4, interrupt_on_full_disk))
    assert workers.signals == [(one.key, signal.SIGTERM)]


def test_a_worker_that_is_still_saving_is_waited_for(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    (one,) = runs_of(1)
    finish(store, StepKind.PREPROCESS, one.data_key)
    workers = FakeWorkers(store, endless=frozenset({one.key}), saving={one.key: 0.5})
    records = interrupted(plan([one], store), workers)
    assert workers.signals == [(one.key, signal.SIGTERM)]
    assert events(records[one.key]) == ["submitted", "started", "stopped"]
    assert "Stopping. The run finishes its step and saves a checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_request_kills_a_worker_and_the_record_says_who_it_was(
    store: Store, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interrupts, "_requests", interrupts.Requests())  # those of other tests ended long ago
    (one,) = runs_of(1)
    finish(store, StepKind.PREPROCESS, one.data_key)
    workers = FakeWorkers(store, endless=frozenset({one.key}), deaf=frozenset({one.key}))
    workers.when_asked = lambda: os.kill(os.getpid(), number)
    records = interrupted(plan([one], store), workers)
    assert workers.signals == [(one.key, signal.SIGTERM), (one.key, signal.SIGKILL)]
    assert events(records[one.key]) == ["submitted", "started", "stopped"]
    last = records[one.key][-1]
    assert (last.reason, last.message) == ("killed", "killed by a second Ctrl-C or SIGTERM")


def test_ctrl_c_records_a_worker_that_had_not_begun_as_stopped(store: Store) -> None:
    (one,) = runs_of(1)
    finish(store, StepKind.PREPROCESS, one.data_key)
    records = interrupted(plan([one], store), FakeWorkers(store, unborn=frozenset({one.key})))
    assert events(records[one.key]) == ["submitted", "stopped"]


def test_ctrl_c_leaves_alone_what_another_launcher_runs(store: Store, rival: Begin) -> None:
    (one,) = runs_of(1)
    finish(store, StepKind.PREPROCESS, one.data_key)
    held = rival(StepKind.TRAIN, one.key)
    workers = FakeWorkers(store)
    records = interrupted(plan([one], store), workers)
    assert workers.signals == []
    assert held.process.is_alive()
    assert events(records[one.key]) == ["followed"]


def test_a_stopped_sweep_goes_on_where_it_ended(store: Store) -> None:
    runs = runs_of(3)
    interrupted(plan(runs, store), FakeWorkers(store, endless=frozenset({runs[1].key})))
    workers = FakeWorkers(store)
    execute(plan(runs, store), workers)
    assert all(observe(store, StepKind.TRAIN, one.key).phase is Phase.SUCCEEDED for one in runs)
    assert runs[0].data_key not in names(workers.started)


def test_the_room_on_a_cpu_is_its_cores() -> None:
    slots = machine_slots(Device.CPU, 64, parallel=3)
    assert slots.total >= 1
    assert slots.parallel == 3
