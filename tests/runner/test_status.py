import os

import pytest

from modal_app.store.claim import claim
from modal_app.store.layout import Store
from modal_app.store.step import OutcomeStatus, StepKind
from runner.command.status import main
from runner.errors import SweepError
from runner.show.status import all_sweeps, sweep_status
from runner.store.ledger import Event, Ledger, Record
from runner.store.run_state import RunStatus
from tests.runner.builders import begin_attempt, finish, open_sweep, plan, run


def test_every_run_of_a_sweep_is_counted_by_its_status(store: Store) -> None:
    runs = [run({"learning_rate": number}) for number in range(7)]
    sweep = open_sweep(store, runs).sweep
    for one, ended in zip(runs, OutcomeStatus, strict=False):
        if ended is not OutcomeStatus.LOST:
            finish(store, StepKind.TRAIN, one.key, ended)
    begin_attempt(store, StepKind.TRAIN, runs[3].key)
    with claim(store.folder(StepKind.TRAIN, runs[4].key)):
        status = sweep_status(store, sweep)
    assert status.runs == 7
    assert status.counts == {"succeeded": 1, "failed": 1, "stopped": 1, "lost": 1, "running": 1, "pending": 2}


def test_a_finished_sweep_has_no_pending_count(store: Store) -> None:
    one = run({"learning_rate": 1})
    finish(store, StepKind.TRAIN, one.key)
    assert sweep_status(store, open_sweep(store, [one]).sweep).counts == {"succeeded": 1}


def test_a_run_counts_in_every_sweep_that_requested_it(store: Store) -> None:
    one, two = run({"learning_rate": 1}), run({"learning_rate": 2})
    finish(store, StepKind.TRAIN, one.key)
    open_sweep(store, [one], "first")
    open_sweep(store, [one, two], "second")
    assert sorted((status.runs, status.counts[RunStatus.SUCCEEDED]) for status in all_sweeps(store)) == [(1, 1), (2, 1)]


def test_sweeps_come_newest_activity_first(store: Store) -> None:
    names = [open_sweep(store, [run({"learning_rate": number})]).sweep for number in range(2)]
    for at, name in enumerate(names):
        os.utime(store.sweeps / name / "records.jsonl", (at, at))
    assert [status.sweep for status in all_sweeps(store)] == names[::-1]
    Ledger(store, names[0]).append(Record(Event.LAUNCHED))
    assert [status.sweep for status in all_sweeps(store)] == names


def test_a_store_without_sweeps_has_none_and_an_unknown_sweep_is_refused(store: Store) -> None:
    assert all_sweeps(store) == []
    with pytest.raises(SweepError, match="There is no sweep x"):
        sweep_status(store, "x")


def test_status_of_a_sweep_that_stopped_early_names_the_command_that_continues_it(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = run({"learning_rate": 1}), run({"learning_rate": 2})
    Ledger(store, sweep := "rates-1").open(plan([one, two], store, sweep), "axosweep -m learning_rate=1,2")

    def shown() -> str:
        assert main([sweep, "--store", str(store.root)]) == 0
        return capsys.readouterr().err

    finish(store, StepKind.TRAIN, one.key)
    assert "To continue" not in shown(), "it has not stopped"
    finish(store, StepKind.TRAIN, two.key, OutcomeStatus.STOPPED)
    assert "To continue" not in shown(), "its launcher, this process, still works on it"
    (store.sweeps / sweep / "records.jsonl").write_text("")
    assert "To continue it: axosweep -m learning_rate=1,2\n" in shown()
    begin_attempt(store, StepKind.TRAIN, two.key)
    with claim(store.folder(StepKind.TRAIN, two.key)):
        assert "To continue" not in shown(), "it is running"


def test_status_of_a_folder_without_sweeps_says_how_to_name_another_one(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--store", str(store.root)]) == 0
    shown = capsys.readouterr()
    assert (shown.out, "If it is in another folder, add --store" in shown.err) == ("", True)
