"""What a launch on this machine does with each step, and what it records of it."""

import os
import signal
from collections.abc import Callable

import pytest

from modal_app.store.layout import Store
from modal_app.store.state import Phase, observe
from modal_app.store.step import OutcomeStatus, StepKind
from runner.console import interrupts
from runner.executors.slots import Slots
from runner.store.ledger import Ledger, Record
from runner.types import Plan
from tests.runner.builders import finish, plan, run
from tests.runner.counting_store import CountingStore
from tests.runner.executors.fakes import FakeWorkers, Rival
from tests.runner.executors.local_launch import TWO_CORES, Begin, after, events, execute, names, recorded, runs_of


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
