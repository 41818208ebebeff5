import json

import pytest

from modal_app.cloud.meter import Card, ContainerRecord
from modal_app.store.layout import Store
from modal_app.store.step import OutcomeStatus, StepKind
from runner.compare.ranking import Row, compare_sweep
from runner.types import Run
from tests.runner.builders import begin_attempt, end_attempt, open_sweep, run

ONE = run({"learning_rate": 1})


def row_of(store: Store, one: Run) -> Row:
    (row,) = compare_sweep(store, open_sweep(store, [one]).sweep)
    return row


def trained(store: Store, status: OutcomeStatus, phases: dict[str, float]) -> None:
    """One attempt, with what Axolotl's plugin leaves."""
    attempt = begin_attempt(store, StepKind.TRAIN, ONE.key)
    attempt.train_state.write_text(json.dumps({"max_steps": 10, "phases": phases}))
    end_attempt(store, StepKind.TRAIN, ONE.key, attempt, status)


def logged(store: Store, **values: float) -> None:
    folder = store.folder(StepKind.TRAIN, ONE.key)
    folder.path.mkdir(parents=True, exist_ok=True)
    with folder.metrics.open("a") as file:
        file.write(json.dumps({"step": len(values), "attempt": 1, "time": 1.0, **values}) + "\n")


def seen_by_the_driver(store: Store, task: str, *peaks_mib: int | None) -> None:
    cards = tuple(Card("NVIDIA H100 80GB HBM3", 81559, peak, 90.0) for peak in peaks_mib)
    record = ContainerRecord(task, "fc-1", "step", 1.0, 2.0, 3.0, True, 9.0, (1,), cards, 0.1, None, 0.1, None)
    folder = store.folder(StepKind.TRAIN, ONE.key).containers
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{task}.json").write_text(record.to_json())


def test_training_seconds_are_the_steps_of_all_attempts_and_give_tokens_per_second(store: Store) -> None:
    trained(store, OutcomeStatus.LOST, {"load": 100.0, "first": 2.0, "train": 8.0})
    trained(store, OutcomeStatus.SUCCEEDED, {"load": 100.0, "first": 1.0, "train": 9.0, "eval": 5.0})
    logged(store, loss=1.0, tokens=1000)
    row = row_of(store, ONE)
    assert (row.train_seconds, row.tokens, row.tokens_per_second, row.attempts) == (20.0, 1000, 50.0, 2)


def test_seconds_are_those_of_all_attempts_so_that_training_is_never_longer_than_the_run(store: Store) -> None:
    trained(store, OutcomeStatus.STOPPED, {"first": 0.5, "train": 1.5})
    killed = begin_attempt(store, StepKind.TRAIN, ONE.key)
    killed.train_state.write_text(json.dumps({"phases": {"load": 1.0, "first": 2.0, "train": 8.0}}))
    trained(store, OutcomeStatus.SUCCEEDED, {"first": 1.0, "train": 1.0})
    row = row_of(store, ONE)
    assert row.seconds == 2.5 + 11.0 + 2.5, "of the killed attempt, the phases"
    assert row.train_seconds == 14.0


def test_a_run_that_has_not_trained_has_no_speed(store: Store) -> None:
    row = row_of(store, ONE)
    assert (row.train_seconds, row.tokens, row.tokens_per_second, row.peak_memory_gib) == (None, None, None, None)


def test_the_peak_is_that_of_the_fullest_card_of_any_container(store: Store) -> None:
    seen_by_the_driver(store, "ta-1", 10 * 1024, 20 * 1024)
    seen_by_the_driver(store, "ta-2", None, 15 * 1024)
    assert row_of(store, ONE).peak_memory_gib == 20.0


@pytest.mark.parametrize(("reserved", "peak"), [(0.0, None), (12.5, 12.5)])
def test_without_a_driver_the_peak_is_what_axolotl_logged_and_a_cpu_has_none(
    store: Store, reserved: float, peak: float | None
) -> None:
    logged(store, **{"loss": 1.0, "memory/device_reserved (GiB)": reserved})
    assert row_of(store, ONE).peak_memory_gib == peak
