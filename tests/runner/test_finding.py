"""Names on the command line, over the local store and a mirror of a remote one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from modal_app.store.layout import Store
from runner.errors import SweepError
from runner.store.finding import runs_in, sweep_in
from runner.store.ledger import Ledger
from runner.store.stores import is_mirror, store_of, stores
from tests.runner.builders import plan, run


def launched(store: Store, name: str, *learning_rates: float, at: int) -> str:
    """A sweep that was launched at second `at`."""
    made = plan([run({"learning_rate": rate}) for rate in learning_rates], store, name)
    ledger = Ledger(store, made.sweep)
    ledger.open(made, "axosweep ...")
    os.utime(ledger.folder / "records.jsonl", (at, at))
    return made.sweep


@pytest.fixture
def both(tmp_path: Path) -> tuple[Store, Store]:
    return store_of("local", str(tmp_path)), store_of("modal", str(tmp_path))


def test_the_newest_sweep_is_that_of_either_store(both: tuple[Store, Store]) -> None:
    here, there = both
    launched(here, "here", 0.1, at=10)
    newest = launched(there, "there", 0.2, at=20)
    assert (sweep_in(both, None).store, sweep_in(both, None).sweep) == (there, newest)
    newest = launched(here, "later", 0.3, at=30)
    assert (sweep_in(both, None).store, sweep_in(both, None).sweep) == (here, newest)


def test_a_sweep_is_found_in_its_place_and_one_in_both_places_in_that_of_its_last_launch(
    both: tuple[Store, Store],
) -> None:
    here, there = both
    launched(here, "here", 0.1, at=10)
    launched(there, "there", 0.2, at=5)
    assert sweep_in(both, "there").store == there
    launched(here, "same", 0.3, at=1)
    launched(there, "same", 0.3, at=2)
    assert sweep_in(both, "same").store == there


def test_a_name_that_fits_nothing_is_refused_with_what_is_near(both: tuple[Store, Store]) -> None:
    sweep = launched(both[0], "lora-rank", 0.1, at=1)
    with pytest.raises(SweepError, match=sweep):
        sweep_in(both, sweep[:-2] + "xx")
    with pytest.raises(SweepError) as caught:
        runs_in(both, "zzz")
    assert f"There is no run or sweep zzz in {both[0].root} and {both[1].root}. `axosweep status`" in str(caught.value)
    with pytest.raises(SweepError, match=f"Did you mean {sweep}"):
        runs_in(both, "lora-rnak")


def test_a_store_without_runs_is_named(both: tuple[Store, Store]) -> None:
    with pytest.raises(SweepError) as caught:
        runs_in(both[:1], "zzz")
    assert f"{both[0].root} has none yet. Name another store with --store DIR" in str(caught.value)


def test_a_checkpoint_in_place_of_a_run_is_refused_with_its_purpose(both: tuple[Store, Store]) -> None:
    launched(both[0], "here", 0.1, at=1)
    key = run({"learning_rate": 0.1}).key
    with pytest.raises(SweepError, match=f"a run or a sweep is expected. .*from={key[:8]}@50"):
        runs_in(both, f"{key[:8]}@50")
    with pytest.raises(SweepError, match="no run or sweep nope@50"):
        runs_in(both, "nope@50")


def test_a_run_is_found_by_the_beginning_of_its_key(both: tuple[Store, Store]) -> None:
    launched(both[1], "there", 0.1, 0.2, at=1)
    wanted = run({"learning_rate": 0.2}).key
    store, (found,), _ = runs_in(both, wanted[:6])
    assert (store, found.key) == (both[1], wanted)


def test_a_sweep_means_all_its_runs(both: tuple[Store, Store]) -> None:
    sweep = launched(both[0], "here", 0.1, 0.2, at=1)
    assert len(runs_in(both, sweep)[1]) == 2


def test_a_mirror_counts_only_once_it_holds_a_sweep(both: tuple[Store, Store], tmp_path: Path) -> None:
    assert stores(str(tmp_path)) == [both[0]]
    launched(both[1], "there", 0.1, at=1)
    assert stores(str(tmp_path)) == [*both]
    assert is_mirror(both[1])
    assert not is_mirror(both[0])


def test_a_run_in_place_of_a_sweep_is_refused_with_its_sweeps(both: tuple[Store, Store]) -> None:
    sweep = launched(both[0], "rates", 0.1, 0.2, at=1)
    key = run({"learning_rate": 0.2}).key
    with pytest.raises(SweepError, match=f"{key[:6]} is a run, but a sweep is expected here: {sweep} has it"):
        sweep_in(both, key[:6])
