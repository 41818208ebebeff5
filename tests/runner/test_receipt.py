"""Receipts of runs that shared containers, whose records were written by their own meters, and of local runs."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from modal_app.cloud.meter import ContainerRecord
from modal_app.process.tracking import TrackingRecord
from modal_app.store.layout import SUBMISSION, Store
from modal_app.store.step import OutcomeStatus, StepKind, write_atomically
from runner.cli import main
from runner.compare.comparison import SweepSelection, comparison
from runner.compare.ranking import compare_sweep
from runner.compare.show_receipt import show_receipt
from runner.cost.receipt import InContainer, Receipt, receipt_of, replaced_note
from runner.cost.spent import containers
from runner.html_report.gather import gather
from runner.types import Gpu
from runner.wandb.local_runs import local_run
from tests.runner.builders import begin_attempt, end_attempt, finish_run, log_losses, open_sweep, run
from tests.runner.report_store import RATES

SCRIPT = str(Path(__file__).with_name("reused_container_script.py"))
LEFT = "the run left a process: sleep <b>100</b> --token=***"
RUNS = [run({"learning_rate": rate}, gpu=Gpu("h100", 1)) for rate in (1e-4, 2e-4, 3e-4, 4e-4)]


@dataclass(frozen=True)
class Reused:
    """A sweep of four runs in two containers: three in the first one, one after the other."""

    store: Store
    sweep: str


@pytest.fixture(scope="module")
def reused(tmp_path_factory: pytest.TempPathFactory) -> Reused:
    store = Store(tmp_path_factory.mktemp("store"))
    planned = open_sweep(store, RUNS)
    submitted = {"steps": [{"key": one.key, "fetches": []} for one in RUNS], "rates": RATES}
    write_atomically(store.sweeps / planned.sweep / SUBMISSION, json.dumps(submitted))
    for index, one in enumerate(RUNS):
        log_losses(store, one, {0: 3.0, 9: 1.0 + index})
    started = [container(store, "ta-1", *RUNS[:3]), container(store, "ta-2", RUNS[3])]
    for process in started:
        assert process.wait(60) == 0
    return Reused(store, planned.sweep)


def container(store: Store, task: str, *runs: Any) -> subprocess.Popen[bytes]:
    variables = {**os.environ, "MODAL_TASK_ID": task, "PYTHONPATH": os.pathsep.join(sys.path)}
    words = [sys.executable, SCRIPT, str(store.root), *(one.key for one in runs)]
    return subprocess.Popen(words, env=variables)


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["compare", *words]) == 0
    return capsys.readouterr().out


def add_up(parts: Mapping[str, float]) -> float:
    return sum(seconds for name, seconds in parts.items() if name != "queue")


def test_the_parts_of_each_run_and_of_each_container_add_up_to_what_is_paid(reused: Reused) -> None:
    rows = {row.key: row.receipt for row in compare_sweep(reused.store, reused.sweep)}
    for one in RUNS:
        receipt, records = rows[one.key], containers(reused.store.folder(StepKind.TRAIN, one.key))
        assert receipt is not None
        assert receipt.seconds == pytest.approx(sum(record.seconds for record in records))
        assert add_up(receipt.parts) == pytest.approx(receipt.seconds, abs=0.01)
        (inside,) = receipt.containers
        assert add_up(inside.parts) == pytest.approx(inside.seconds, abs=0.01)
        assert receipt.parts["copy"] >= 0.04
        assert min(receipt.parts[name] for name in ("import", "load", "first step", "train", "evaluate", "save")) > 0
        assert receipt.parts["prepare"] >= 0.04, "both phases before the model is loaded"


def test_only_the_first_run_of_a_container_pays_for_its_boot_and_the_others_for_its_waiting(reused: Reused) -> None:
    parts = [row.receipt.parts for row in in_order(reused) if row.receipt]
    assert ["boot" in one for one in parts] == [True, False, False, True]
    assert ["idle" in one for one in parts] == [False, True, True, False]
    assert min(parts[1]["idle"], parts[2]["idle"]) >= 0.06


def in_order(reused: Reused) -> list[Any]:
    rows = {row.key: row for row in compare_sweep(reused.store, reused.sweep)}
    return [rows[one.key] for one in RUNS]


def test_json_has_each_container_with_its_runs_its_dollars_and_why_it_ended(
    reused: Reused, capsys: pytest.CaptureFixture[str]
) -> None:
    read = json.loads(said(capsys, "--json", "--store", str(reused.store.root)))
    first, second = sorted(read["containers"], key=lambda one: str(one["container"]))
    assert (first["container"], first["runs"]) == ("ta-1", [one.key for one in RUNS[:3]])
    assert (second["runs"], second["ended_because"]) == ([RUNS[3].key], LEFT)
    by_key = {one["key"]: one for one in read["runs"]}
    for one in (first, second):
        mine = [by_key[key] for key in one["runs"]]
        assert one["seconds"] == pytest.approx(sum(each["paid_seconds"] for each in mine), abs=0.01)
        assert one["dollars"] == pytest.approx(sum(each["dollars"] for each in mine))
        assert add_up(one["parts"]) == pytest.approx(one["seconds"], abs=0.02)
    records = [record for run in RUNS[:3] for record in containers(reused.store.folder(StepKind.TRAIN, run.key))]
    life = max(one.seen_at for one in records) - records[0].booted_at
    assert first["seconds"] == pytest.approx(life, abs=0.1), "from its boot to its last record, each second once"


def test_the_tables_are_by_run_and_by_container_and_a_sentence_is_about_all(
    reused: Reused, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "240")
    text = said(capsys, "--receipt", "--store", str(reused.store.root))
    heads = [line.split() for line in text.splitlines() if line.startswith(("run ", "container "))]
    assert heads[0][:6] == ["run", "settings", "paid", "s", "queue", "boot"]
    assert heads[1][:5] == ["container", "runs", "paid", "s", "boot"]
    assert LEFT in text
    assert "4 runs in 2 containers; 2 runs began without a boot." in text
    assert "% of " in text
    assert "paid seconds was training; " in text
    marked = said(capsys, "--receipt", "--md", "--store", str(reused.store.root))
    assert "**Seconds by container**" in marked
    assert "| ta-1 | 3 |" in marked


def test_on_a_narrow_terminal_dollars_and_why_a_container_ended_stay(reused: Reused) -> None:
    result = comparison(compare_sweep(reused.store, reused.sweep), [SweepSelection(reused.store, reused.sweep)])
    console = Console(width=72, file=io.StringIO())
    with console.capture() as captured:
        show_receipt(result, console)
    heads = [line for line in captured.get().splitlines() if line.startswith(("run ", "container "))]
    assert all("boot" in head and "train" in head and "dollars" in head for head in heads), heads
    assert "ended because" in heads[1]


def test_containers_that_others_had_to_replace_are_printed_with_the_reason() -> None:
    def used(container: str, began_at: float, why: str = "") -> Receipt:
        return Receipt(9.0, {}, (InContainer(container, began_at, 9.0, ended_because=why),))

    clean = [used("ta-1", 1.0), used("ta-2", 2.0), used("ta-1", 11.0, LEFT)]
    assert not replaced_note(clean), "nothing was to follow the last one"
    replaced = [*clean, used("ta-2", 12.0, LEFT), used("ta-3", 20.0, "the run left a file"), used("ta-4", 30.0)]
    assert replaced_note(replaced) == (
        f"3 of 4 containers took no further run, so others had to boot: {LEFT} (2); the run left a file (1)."
    )


def test_the_csv_has_a_column_for_each_part(reused: Reused, capsys: pytest.CaptureFixture[str]) -> None:
    rows = list(csv.DictReader(io.StringIO(said(capsys, "--csv", "--store", str(reused.store.root)))))
    for row in rows:
        parts = [
            float(value)
            for name, value in row.items()
            if name.startswith("receipt.") and value and name != "receipt.queue"
        ]
        assert sum(parts) == pytest.approx(float(row["paid_seconds"]), abs=0.01)


def test_the_report_has_the_same_receipts(reused: Reused) -> None:
    values = gather(reused.store, reused.sweep)
    for one in values["runs"]:
        assert add_up(one["parts"]) == pytest.approx(one["paid"], abs=0.01)
    found = {one["container"]: one for one in values["containers"]}
    assert len(found["ta-1"]["runs"]) == 3
    assert found["ta-2"]["ended_because"] == LEFT, "the page writes it as text"
    assert add_up(values["receipt"]["parts"]) == pytest.approx(sum(one["seconds"] for one in found.values()), abs=0.05)
    assert {"idle", "copy"} <= {*values["parts"]} & {*values["receipt"]["parts"]}


def test_wandb_gets_the_seconds_by_part_the_container_and_why_it_ended_without_secrets(reused: Reused) -> None:
    rows, record = in_order(reused), TrackingRecord("id", "group")
    for row, task in ((rows[1], "ta-1"), (rows[3], "ta-2")):
        summary = local_run(reused.store, row, record, reused.sweep, None).summary
        found = {name.removeprefix("receipt/"): one for name, one in summary.items() if name.startswith("receipt/")}
        assert found.pop("containers") == task
        assert found.pop("ended_because", None) == (LEFT if row is rows[3] else None)
        assert found == {"seconds": row.receipt.seconds, **row.receipt.parts}


def test_a_container_that_booted_first_may_begin_a_run_last(store: Store) -> None:
    folder = store.folder(StepKind.TRAIN, "run")
    folder.containers.mkdir(parents=True)
    for task, booted_at, began_at in (("ta-old", 0.0, 200.0), ("ta-young", 100.0, 110.0)):
        record = ContainerRecord(
            task, "fc", "train/run", booted_at, began_at, began_at + 9, True, 9.0, (1,), (), 2.0, None, 16.0, None
        )
        (folder.containers / f"{task}.json").write_text(record.to_json())
    assert [one.task for one in containers(folder)] == ["ta-young", "ta-old"]


def test_seconds_that_a_killed_worker_has_recorded_and_that_were_not_paid_do_not_count(store: Store) -> None:
    one = run({}, gpu=Gpu("h100", 1))
    open_sweep(store, [one])
    attempt = begin_attempt(store, StepKind.TRAIN, one.key)
    phases = {"import": 10.0, "load": 10.0, "train": 30.0}
    write_atomically(attempt.train_state, json.dumps({"phases": phases}))
    record = ContainerRecord(
        "ta-1", "fc-1", f"train/{one.key}", 100.0, 110.0, 150.0, False, 50.0, (1,), (), 2.0, None, 16.0, None, boot=10.0
    )
    folder = store.folder(StepKind.TRAIN, one.key)
    folder.containers.mkdir()
    (folder.containers / "ta-1.json").write_text(record.to_json())
    receipt = receipt_of(folder)
    assert receipt is not None
    assert receipt.parts == {"boot": 10.0, "import": 8.0, "load": 8.0, "train": 24.0}


def test_a_run_of_this_machine_has_the_parts_of_its_worker_and_no_container(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    one = run({"lora_r": 8})
    finish_run(store, one, {0: 2.0, 9: 1.0})
    attempt = store.folder(StepKind.TRAIN, one.key).attempt(1)
    write_atomically(attempt.train_state, json.dumps({"phases": {"import": 0.5, "train": 1.0, "eval": 0.25}}))
    open_sweep(store, [one, run({"lora_r": 16})])
    read = json.loads(said(capsys, "--json", "--store", str(store.root)))
    receipts = {one["key"]: one["receipt"] for one in read["runs"]}
    parts = {"import": 0.5, "train": 1.0, "evaluate": 0.25, "other": 0.75}
    assert receipts.pop(one.key) == {"seconds": 2.5, "parts": parts, "containers": []}
    assert [*receipts.values()] == [None], "the other one has not begun"
    assert read["containers"] == []
    text = said(capsys, "--receipt", "--store", str(store.root))
    assert "40% of 2.5 seconds of this machine was training; other 30%, import 20%, evaluate 10%." in text
    assert main(["compare", "--receipt", "--over", "seed", "--store", str(store.root)]) == 2
    assert "leave out --over" in capsys.readouterr().err


def test_a_run_that_was_tried_again_counts_all_attempts(store: Store) -> None:
    one = run({"lora_r": 8})
    open_sweep(store, [one])
    for status in (OutcomeStatus.FAILED, OutcomeStatus.SUCCEEDED):
        attempt = begin_attempt(store, StepKind.TRAIN, one.key)
        write_atomically(attempt.train_state, json.dumps({"phases": {"train": 2.0}}))
        end_attempt(store, StepKind.TRAIN, one.key, attempt, status)
    receipt = receipt_of(store.folder(StepKind.TRAIN, one.key))
    assert receipt is not None
    assert (receipt.seconds, receipt.parts) == (5.0, {"train": 4.0, "other": 1.0})
