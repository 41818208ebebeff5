"""Whole sweeps, as the README's first command runs them."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from modal_app.store.step import StepKind
from tests.end_to_end.axosweep import UNPADDED, Axosweep, wait_until
from tests.end_to_end.chats import write_chats
from tests.end_to_end.own_code import UNFORESEEN, write_failing_plugin
from tests.webhook_server import serve_webhook

pytestmark = pytest.mark.slow

FEW = "data.limit=200"
"""Rows: preparing and evaluating all of them takes longer than a dozen steps."""
SHORT = ("max_steps=12", "micro_batch_size=4", FEW, UNPADDED, "tracking=disabled")
GRID = ("-m", "+sweeps=tiny_grid", "num_epochs=1", UNPADDED)
"""The shipped grid with half of its steps, which are enough for the best rate and rank to be the same."""


def test_the_shipped_grid_learns_and_is_not_paid_twice(axosweep: Axosweep, trained_once: Path) -> None:
    """Two of its runs have been trained by another sweep, one of each rank."""
    shutil.copytree(trained_once, axosweep.store.root, symlinks=True, dirs_exist_ok=True)
    assert Counter(record["kind"] for record in axosweep.records("started")) == {"preprocess": 1, "train": 2}
    narrow = axosweep.run(*GRID, "lora=r4")
    assert narrow.returncode == 0, narrow.stderr
    assert Counter(record["kind"] for record in axosweep.records("started")) == {"preprocess": 1, "train": 4}
    done = axosweep.run(*GRID)
    assert done.returncode == 0, done.stderr
    rows = axosweep.json("compare")["runs"]
    finals = {(row["params"]["lora_r"], row["params"]["learning_rate"]): row["final"] for row in rows}
    rates = sorted({rate for _, rate in finals})
    best = next(row for row in rows if row["is_best"])
    assert len(rows) == 6
    assert max(finals.values()) - min(finals.values()) >= 0.3
    assert best["final"] <= best["first"] - 0.5
    assert best["final"] == min(finals.values())
    assert best["params"]["learning_rate"] == rates[1], "the best rate is not an end of the grid"

    written = axosweep.json("best", "--write", "best.yml")
    assert written["run"]["key"] == best["key"]
    (again,) = axosweep.json("plan", "base=best.yml")["runs"]
    assert (again["key"], again["done"]) == (best["key"], True), "its config is the same run"

    started = Counter(record["kind"] for record in axosweep.records("started"))
    assert started == {"preprocess": 1, "train": 6}
    (manifest,) = axosweep.store.prepared.glob("*/manifest.json")
    read = {row["record"]["manifest"] for row in rows}
    assert read == {hashlib.sha256(manifest.read_bytes()).hexdigest()}

    repeated = axosweep.run(*GRID)
    assert repeated.returncode == 0
    assert "6 runs finished before, skipped; nothing to do" in repeated.stdout
    assert Counter(record["kind"] for record in axosweep.records("started")) == started


def test_one_run_without_sweep_goes_the_same_way(axosweep: Axosweep) -> None:
    done = axosweep.run("lora=r16", "max_steps=5", FEW)
    assert done.returncode == 0, done.stderr
    (row,) = axosweep.json("compare")["runs"]
    assert (row["status"], row["step"]) == ("succeeded", 5)
    assert row["final"] is not None, "the last step is evaluated whatever the schedule says"
    assert list(axosweep.store.runs.glob("*/model/adapter_model.safetensors"))
    log = axosweep.run("logs", row["key"][:6], "--follow")
    assert log.returncode == 0, log.stderr
    assert log.stdout == Path(row["log"]).read_bytes().decode(errors="replace"), "with each carriage return of a bar"


def test_two_overlapping_sweeps_share_one_preprocessing_and_one_training_per_run(axosweep: Axosweep) -> None:
    first = axosweep.start("-m", "lora=r4,r8", *SHORT)
    second = axosweep.start("-m", "lora=r8,r16", *SHORT)
    said = [process.communicate(timeout=300)[0] for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), said
    starts = Counter((record["kind"], record["key"]) for record in axosweep.records("started"))
    assert set(starts.values()) == {1}
    assert Counter(kind for kind, _ in starts) == {"preprocess": 1, "train": 3}
    assert axosweep.records("followed"), "one waited for what the other had begun"


def test_a_failed_run_does_not_stop_the_others_and_says_why(axosweep: Axosweep) -> None:
    """A webhook gets a notice of it while the other run trains."""
    words = ("-m", f"plugins=[{write_failing_plugin(axosweep.folder)}],[]", *SHORT)
    with serve_webhook() as webhook:
        notified = axosweep.with_variables({"TEST_NOTIFY_URL": webhook.address})
        done = notified.run(*words, "notify=TEST_NOTIFY_URL", "--notify-command", f"cat > {axosweep.folder}/body")
    assert done.returncode == 1, done.stderr
    failed, over = webhook.bodies
    assert UNFORESEEN in failed["text"]
    assert (over["event"], over["counts"]) == ("sweep done", {"failed": 1, "succeeded": 1})
    assert json.loads((axosweep.folder / "body").read_text())["id"] == over["id"]
    written = [path.read_text(errors="replace") for path in axosweep.store.root.rglob("*") if path.is_file()]
    assert not any(webhook.address in text for text in [done.stdout, done.stderr, *written])
    rows = {row["status"]: row for row in axosweep.json("compare")["runs"]}
    assert set(rows) == {"failed", "succeeded"}
    assert UNFORESEEN in rows["failed"]["message"]
    assert UNFORESEEN in done.stdout


def test_rows_that_no_run_can_train_on_fail_where_they_are_prepared_and_others_are_noted(axosweep: Axosweep) -> None:
    """Preflight does not read files of this name, so their rows are not known before."""
    write_chats(axosweep.folder / "long.ndjson", [("user", "long " * 400), ("assistant", "Yes.")], times=40)
    write_chats(axosweep.folder / "silent.ndjson", [("user", "Who?"), ("user", "You.")], times=40)
    write_chats(axosweep.folder / "half.ndjson", [("user", "Who?"), ("assistant", "You.")], times=120)
    half = (axosweep.folder / "half.ndjson").read_text() + (axosweep.folder / "long.ndjson").read_text() * 3
    (axosweep.folder / "half.ndjson").write_text(half)
    (axosweep.folder / "odd.ndjson").write_text('{"messages": [{"from": "human", "value": "Who?"}], "id": 7}\n')
    words = ("dataset=local", "max_steps=2", "tracking=disabled")
    done = axosweep.run("-m", *words, "data.path=long.ndjson,silent.ndjson,half.ndjson,odd.ndjson")
    assert done.returncode == 1, done.stderr
    assert "failed (data)  none of the 40 rows of datasets is left: all are longer than sequence_len=128" in done.stderr
    assert "of its 38 rows is trained, so the loss of every step would be NaN. Check roles_to_train" in done.stderr
    assert "failed (data)  Axolotl reads 'role' from its rows, and there is none" in done.stderr
    assert "datasets.0 has messages, id. Name the type" in done.stderr
    assert done.stderr.count("note: sequence_len=128: 120 of 240 rows were dropped") == 1
    assert Counter(record["kind"] for record in axosweep.records("started")) == {"preprocess": 4, "train": 1}
    rows = axosweep.json("compare")["runs"]
    assert Counter(row["status"] for row in rows) == {"blocked": 3, "succeeded": 1}
    planned = axosweep.run("plan", *words, "data.path=half.ndjson")
    assert "120 of 240 rows were dropped" in planned.stdout + planned.stderr


def test_two_ranks_train_as_one_world(axosweep: Axosweep) -> None:
    done = axosweep.run("gpu.count=2", "max_steps=6", FEW, UNPADDED, "tracking=disabled")
    assert done.returncode == 0, done.stderr
    (row,) = axosweep.json("compare")["runs"]
    assert row["record"]["world_size"] == 2


def test_what_a_run_is_decides_its_dataset_and_nothing_else_does(alone: Axosweep) -> None:
    # Without a trainer, Axolotl's schema is not checked, which takes time and decides no key.
    planning = alone.with_variables({"AXOSWEEP_TRAINER": str(alone.folder / "none")})

    def data_keys(*words: str) -> list[str]:
        return [run["data_key"] for run in planning.json("plan", "-m", *words)["runs"]]

    local = alone.folder / "my.jsonl"
    row = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    local.write_text((json.dumps(row) + "\n") * 40)
    before = data_keys("dataset=local", f"data.path={local}")
    local.write_text((json.dumps(row) + "\n") * 41)
    assert data_keys("dataset=local", f"data.path={local}") != before
    assert len(set(data_keys("seed=1,2"))) == 1
    assert len(set(data_keys("seed=1,2", "data.seed=null"))) == 2
    assert len(set(data_keys("sequence_len=64,96"))) == 2
    assert set(data_keys("seed=1,2", "data.seed=7")).isdisjoint(data_keys("seed=1,2"))
    same = data_keys("learning_rate=1e-3,2e-3", "lora=r4,r8", "micro_batch_size=4,8")
    same += data_keys("tracking=offline,disabled")
    assert len(set(same)) == 1


def test_interrupting_leaves_no_process_and_can_be_continued(axosweep: Axosweep) -> None:
    words = ("-m", "lora=r4,r8", "max_steps=24", "micro_batch_size=4", FEW, "tracking=disabled")
    launcher = axosweep.ending().start(*words)
    wait_until(lambda: len(list(axosweep.store.runs.glob("*/metrics.jsonl"))) == 2, "both runs train")
    launcher.send_signal(signal.SIGINT)
    launcher.wait(timeout=60)
    deadline = time.monotonic() + 30
    while axosweep.processes() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert axosweep.processes() == []
    assert launcher.returncode == 130
    stopped = [record for record in axosweep.records("finished") if record["kind"] == StepKind.TRAIN]
    assert len(stopped) == 2
    assert {record["status"] for record in stopped} <= {"stopped", "succeeded"}
    assert axosweep.run(*words).returncode == 0
    assert {row["status"] for row in axosweep.json("compare")["runs"]} == {"succeeded"}


def test_cancelling_stops_the_workers_and_keeps_what_they_can_go_on_from(axosweep: Axosweep) -> None:
    launcher = axosweep.start("-m", "lora=r4,r8", "num_epochs=500", FEW, "tracking=disabled")
    wait_until(lambda: len(list(axosweep.store.runs.glob("*/metrics.jsonl"))) == 2, "both runs train")
    cancelled = axosweep.run("cancel")
    assert (cancelled.returncode, cancelled.stdout) == (0, "2 ended.\n")
    said, _ = launcher.communicate(timeout=30)
    assert launcher.returncode == 130, said
    assert {row["status"] for row in axosweep.json("compare")["runs"]} == {"stopped"}
    assert len(list(axosweep.store.runs.glob("*/model/checkpoint-*/complete.json"))) >= 2
    assert axosweep.run("cancel").stdout == "Nothing was running.\n"


def test_a_sweep_that_is_still_starting_can_be_cancelled(axosweep: Axosweep, alone: Axosweep) -> None:
    axosweep.json("plan", "-m", "lora=r4,r8", "tracking=disabled")
    alone.know_verdicts(axosweep.verdicts.read_text())
    launcher = alone.start("-m", "lora=r4,r8", "tracking=disabled")
    wait_until(lambda: alone.preloaded() is not None and alone.has_a_sweep(), "Axolotl starts")
    assert alone.run("cancel").stdout == "1 ended.\n"
    launcher.communicate(timeout=30)
    assert launcher.returncode == 130
    assert not alone.records("started")
    wait_until(lambda: alone.processes() == [], "no process is left", timeout_s=30)


def test_a_wrong_key_is_one_message_and_starts_nothing(alone: Axosweep) -> None:
    done = alone.run("-m", "learnig_rate=1e-3,2e-3")
    assert done.returncode == 2
    assert "Did you mean learning_rate?" in done.stderr
    assert "Traceback" not in done.stderr
    assert not alone.store.root.exists()
