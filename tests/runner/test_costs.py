"""Dollars in rows, tables and sums: from the containers' records, at the rates that the sweep was submitted with."""

from __future__ import annotations

import datetime
import io
import json
from typing import Any

import pytest
from rich.console import Console

from modal_app.cloud.meter import Card, ContainerRecord
from modal_app.store.layout import SUBMISSION, StepFolder, Store
from modal_app.store.step import StepKind
from runner.compare.ranking import compare_sweep
from runner.cost.prices import rates_from
from runner.cost.spent import fetch_folder, money, sweep_cost
from runner.show.downloads import download_lines
from runner.show.progress import Progress
from runner.show.status import sweep_status
from runner.show.tables import show_rows
from runner.store.ledger import Ledger
from runner.types import Gpu, PriceTable, Run
from tests.runner.builders import finish, finish_run, open_sweep, run

H100 = "NVIDIA H100 80GB HBM3"
TABLE = PriceTable("2026-09-20", "somewhere", {"h100": 0.001, "h200": 0.0012}, 0.00001, 0.000002, 0.09)
RATES = rates_from(TABLE, {"gpu_hour_cost_h100": 3.6}, datetime.date(2026, 11, 24))
MACHINE = 4 * 0.00001 + 16 * 0.000002
FETCH = "fetch/owner/model@0123"
ONE, TWO = (run({"learning_rate": rate}, gpu=Gpu("h100", 2)) for rate in (1e-3, 2e-3))


def rent(folder: StepFolder, task: str, seconds: float, *cards: str, ended: bool = True) -> None:
    """What a container leaves."""
    shown = tuple(Card(name, 81559, 40000, 90.0) for name in cards)
    record = ContainerRecord(
        task, "fc-1", "step", 1.0, 2.0, 3.0, ended, seconds, (1,), shown, 4.0, None, 16.0, None
    )  # fmt: skip
    folder.containers.mkdir(parents=True, exist_ok=True)
    (folder.containers / f"{task}.json").write_text(record.to_json())


def submit(store: Store, sweep: str, *runs: Run) -> None:
    """What a submission leaves."""
    steps: list[dict[str, Any]] = [{"kind": "train", "key": one.key, "data_key": one.data_key} for one in runs]
    steps += [
        {"kind": "preprocess", "key": one.data_key, "data_key": one.data_key, "fetches": [FETCH]} for one in runs[:1]
    ]
    path = store.sweeps / sweep / SUBMISSION
    path.write_text(json.dumps({"names": {}, "steps": steps, "rates": RATES.as_json()}))


@pytest.fixture
def rented(store: Store) -> str:
    """A sweep of two runs on two H100s each: one was trained in two containers, and its dataset and model were
    fetched."""
    sweep = open_sweep(store, [ONE, TWO]).sweep
    submit(store, sweep, ONE, TWO)
    finish_run(store, ONE, {10: 0.5})
    rent(store.folder(StepKind.TRAIN, ONE.key), "ta-1", 100, H100, H100)
    rent(store.folder(StepKind.TRAIN, ONE.key), "ta-2", 50, H100, H100, ended=False)
    rent(store.folder(StepKind.PREPROCESS, ONE.data_key), "ta-3", 30)
    rent(fetch_folder(store, FETCH), "ta-4", 20)
    return sweep


def test_a_row_has_the_dollars_of_all_its_containers(store: Store, rented: str) -> None:
    trained, pending = compare_sweep(store, rented)
    assert trained.paid_seconds == 150
    assert trained.dollars == pytest.approx(150 * (2 * 0.001 + MACHINE))
    assert trained.gpu == "2 x h100"
    assert (pending.paid_seconds, pending.dollars, pending.gpu) == (None, None, None)


def test_a_runs_record_tells_how_full_and_how_busy_its_cards_were(store: Store, rented: str) -> None:
    trained, _ = compare_sweep(store, rented)
    first, second = trained.record["containers"]
    assert {first["task"], second["task"]} == {"ta-1", "ta-2"}
    assert first["cards"][0] == {"name": H100, "memory_mib": 81559, "peak_mib": 40000, "utilisation": 90.0}


def test_the_sum_counts_the_dataset_and_the_model_too(store: Store, rented: str) -> None:
    cost = sweep_cost(store, rented, Ledger(store, rented).plan().runs)
    assert cost is not None
    assert cost.preparing.dollars == pytest.approx(50 * MACHINE)
    assert cost.bill.dollars == pytest.approx(150 * 0.002 + 200 * MACHINE)
    assert sweep_status(store, rented).dollars == cost.bill.dollars


def test_the_sum_counts_what_came_after_a_run_on_its_one_card(store: Store, rented: str) -> None:
    before = sweep_cost(store, rented, Ledger(store, rented).plan().runs)
    rent(store.folder(StepKind.MERGE, f"{ONE.key}/ab12"), "ta-5", 40)  # a card that nvidia-smi has not shown
    after = sweep_cost(store, rented, Ledger(store, rented).plan().runs)
    assert before is not None
    assert after is not None
    assert after.training == before.training
    assert after.after.dollars == pytest.approx(40 * (0.001 + MACHINE))
    assert after.bill.dollars == pytest.approx(before.bill.dollars + after.after.dollars)
    assert "after training" in after.lines(going_on=False)[0]
    assert "after training" not in before.lines(going_on=False)[0]


def test_the_table_shows_dollars_and_below_it_where_the_rates_are_from(
    store: Store, rented: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    show_rows(compare_sweep(store, rented), store, rented, as_json=False)
    said = capsys.readouterr().out
    assert "2 x h100" in said
    assert (
        "$0.31 so far: $0.31 training, $0.0036 preparing; rates: "
        "h100: Modal's of 2026-11-24; cpu, memory: table of 2026-09-20" in said
    )


def test_an_unknown_card_is_named_below_the_table(
    store: Store, rented: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rent(store.folder(StepKind.TRAIN, TWO.key), "ta-5", 10, "NVIDIA X900", "NVIDIA X900")
    show_rows(compare_sweep(store, rented), store, rented, as_json=False)
    assert "Charged as the requested GPU: NVIDIA X900" in capsys.readouterr().out


def test_a_sweep_that_ran_here_has_no_dollars_and_no_columns_for_them(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = open_sweep(store, [ONE]).sweep
    finish_run(store, ONE, {10: 0.5})
    show_rows(compare_sweep(store, sweep), store, sweep, as_json=False)
    said = capsys.readouterr().out
    assert "$" not in said
    assert "dollars" not in said
    show_rows(compare_sweep(store, sweep), store, sweep, as_json=True)
    printed: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert printed["cost"] is None
    assert (printed["runs"][0]["dollars"], printed["runs"][0]["paid_seconds"], printed["runs"][0]["gpu"]) == (
        None,
        None,
        None,
    )


def test_a_sweep_whose_runs_were_all_trained_before_is_priced_as_they_were(store: Store, rented: str) -> None:
    again = open_sweep(store, [ONE], name="again").sweep
    (row,) = compare_sweep(store, again)
    assert row.dollars == compare_sweep(store, rented)[0].dollars
    stranger = run({"learning_rate": 3e-3})
    other = open_sweep(store, [stranger], name="other").sweep
    rent(store.folder(StepKind.TRAIN, stranger.key), "ta-9", 100)
    assert compare_sweep(store, other)[0].dollars is None


def test_a_launch_shows_the_dollars_so_far(store: Store) -> None:
    plan = open_sweep(store, [ONE])
    submit(store, plan.sweep, ONE)
    screen = io.StringIO()
    console = Console(file=screen, width=200, force_terminal=True)
    with Progress(plan, store, console, seconds_between_frames=0) as progress:
        rent(store.folder(StepKind.TRAIN, ONE.key), "ta-1", 100, H100, H100, ended=False)
        progress.update()
    assert "dollars" in screen.getvalue()
    assert "elapsed, $0.21 so far" in screen.getvalue()


def test_a_launch_shows_what_a_container_downloads_while_a_dataset_waits_for_it(store: Store) -> None:
    sweep = open_sweep(store, [ONE]).sweep
    submit(store, sweep, ONE)
    assert download_lines(store, sweep) == []
    rent(fetch_folder(store, FETCH), "ta-4", 20, ended=False)
    (line,) = download_lines(store, sweep)
    assert (line.label, line.message, line.status) == ("owner/model", "downloading", "running")
    rent(fetch_folder(store, FETCH), "ta-4", 20)
    assert download_lines(store, sweep) == [], "it has ended"
    rent(fetch_folder(store, FETCH), "ta-4", 20, ended=False)
    finish(store, StepKind.PREPROCESS, ONE.data_key)
    assert download_lines(store, sweep) == [], "a killed container never ends its record, but nothing waits for it"


def test_small_dollars_are_not_rounded_away() -> None:
    assert [money(one) for one in (0, 0.00042, 0.0099, 0.25, 1234.567)] == [
        "$0.00", "$0.0004", "$0.0099", "$0.25", "$1234.57",
    ]  # fmt: skip
