"""`axosweep sync`: W&B is brought up to date with the store, a second sync changes nothing, and nothing is invented."""

from __future__ import annotations

import json
import math
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from modal_app.store.layout import Store
from modal_app.store.step import OutcomeStatus, StepKind
from runner.store.ledger import Ledger
from runner.types import Run
from runner.wandb.history import missing, rows_of
from tests.forked_command import COMMAND
from tests.printed_json import read_printed
from tests.runner.builders import finish, finish_run, open_sweep, plan, run
from tests.wandb_server import WandbServer, serve_wandb
from tests.wandb_server.sdk import LoggedRun, log_runs


@pytest.fixture
def server() -> Iterator[WandbServer]:
    with serve_wandb() as server:
        yield server


def axosweep(store: Store, server: WandbServer | None, *words: str) -> subprocess.CompletedProcess[str]:
    nobody = {"WANDB_API_KEY": "", "NETRC": str(store.root / "netrc")}
    other = {f"WANDB_{name}": "of another program" for name in ("NAME", "TAGS", "NOTES")}
    environment = {**os.environ, "AXOSWEEP_STORE": str(store.root), **nobody, **other}
    return subprocess.run(
        [*COMMAND, *words],
        env={**environment, **(server.environment() if server else {})},
        cwd=store.root, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def tracked(store: Store, one: Run, id: str, group: str) -> None:
    kept = {"id": id, "group": group, "project": "axosweep", "entity": "", "sweeps": []}
    store.folder(StepKind.TRAIN, one.key).tracking.write_text(json.dumps(kept))


def sdk(store: Store, one: Run, id: str, group: str, *steps: int, server: WandbServer | None = None) -> None:
    """What a trainer logs to the end: offline, or to a server."""
    folder = store.folder(StepKind.TRAIN, one.key).path
    environment = {**os.environ, "WANDB_DIR": str(folder), "WANDB_DATA_DIR": str(folder), "WANDB_SILENT": "true"}
    environment |= server.environment() if server else {}
    mode = "online" if server else "offline"
    init = {"project": "axosweep", "id": id, "name": "one", "group": group, "mode": mode, "resume": "allow"}
    rows = [{"train/global_step": step, "eval/loss": 1 / (step + 1)} for step in steps]
    log_runs([LoggedRun(init, rows)], environment, folder)


def cut_off(store: Store, one: Run) -> None:
    """Cut the file of an offline run as a kill does: without its end."""
    (part,) = store.folder(StepKind.TRAIN, one.key).path.glob("wandb/offline-run-*/*.wandb")
    part.write_bytes(part.read_bytes()[:-40])


def said(store: Store, server: WandbServer, sweep: str) -> dict[str, str]:
    done = axosweep(store, server, "sync", sweep, "--json")
    assert done.returncode == 0, done.stderr
    return {one["key"]: one["said"] for one in read_printed("sync", done.stdout)["runs"]}


@pytest.mark.slow
def test_offline_runs_lost_rows_and_later_sweeps_reach_wandb_once(store: Store, server: WandbServer) -> None:
    same = {"sequence_len": 128, "lora_r": 8}
    whole, killed, never, cut = runs = [run({**same, "learning_rate": rate}) for rate in (1e-3, 2e-3, 3e-3, 4e-3)]
    sweep = open_sweep(store, runs, "first").sweep
    tracked(store, whole, "whole", sweep)
    tracked(store, killed, "killed", sweep)
    finish_run(store, whole, {0: 1.0, 1: 0.5})
    sdk(store, whole, "whole", sweep, 0, 1)
    lost = store.folder(StepKind.TRAIN, killed.key)
    lost.metrics.write_text(
        '{"step": 0, "attempt": 1, "eval_loss": 3.0}\n{"step": 1, "attempt": 1, "loss": 2.0, "tokens": 8}\n{"step": 2'
    )
    empty = lost.path / "wandb" / "offline-run-20260101_000000-killed" / "run-killed.wandb"
    empty.parent.mkdir(parents=True)
    empty.write_bytes(b":W&B\xe1\xbe\x00")  # killed before anything was flushed
    finish(store, StepKind.TRAIN, killed.key, OutcomeStatus.FAILED)
    tracked(store, cut, "cut", sweep)
    finish_run(store, cut, {0: 1.0, 1: 0.5, 2: 1 / 3})
    sdk(store, cut, "cut", sweep, 0, 1)
    cut_off(store, cut)
    sdk(store, cut, "cut", sweep, 2, server=server)  # its second attempt was tracked online, to the end

    first = said(store, server, sweep)
    assert first[whole.key].startswith("1 offline part uploaded")
    assert first[killed.key].startswith("2 of 2 rows added from metrics.jsonl")
    assert first[never.key].startswith("was never tracked")
    assert first[cut.key].startswith("1 offline part uploaded, its state and last losses corrected")
    there = server.runs()
    assert {name: (one.state, one.group) for name, one in there.items()} == {
        "whole": ("finished", sweep),
        "killed": ("failed", sweep),
        "cut": ("finished", sweep),
    }
    assert {name: one.display_name for name, one in there.items() if name != "killed"} == {"whole": "one", "cut": "one"}
    assert not any(one.tags or one.notes for one in there.values()), "not those of this environment"
    assert there["cut"].summary["eval/loss"] == 1 / 3, "the last part to be uploaded is not the run's last one"
    assert {(one.settings["sequence_len"], one.settings["lora_r"]) for one in there.values()} == {(128, 8)}
    assert there["whole"].settings["learning_rate"] == 1e-3
    assert there["killed"].values("eval/loss") == {0: 3.0}
    assert there["killed"].values("train/loss") == {1: 2.0}
    assert there["killed"].summary["eval/loss"] == 3.0
    assert not list(store.root.glob("wandb")), "W&B's own logs stay out of the folder"

    rows = {name: len(one.history) for name, one in there.items()}
    assert set(said(store, server, sweep).values()) == {"up to date", first[never.key]}
    assert {name: len(one.history) for name, one in server.runs().items()} == rows

    # A run that a later attempt continues has grown, and a later sweep that requests it is a tag of it. Its own step 2
    # was lost; what is added for it later must not become the summary.
    finish_run(store, whole, {2: 0.25, 3: 0.125})
    sdk(store, whole, "whole", sweep, 3)
    later = open_sweep(store, [whole, run({"learning_rate": 9e-3})], "later").sweep
    assert said(store, server, later)[whole.key].startswith("1 offline part uploaded, 1 of 4 rows added")
    assert sorted(server.runs()["whole"].values("eval/loss")) == [0, 1, 2, 3]
    assert server.runs()["whole"].summary["eval/loss"] == 0.125
    assert server.runs()["whole"].tags == [f"sweep:{later}"]

    # The note of a later sweep is added once, after what a user has written there, and stays as a user changes it.
    server.runs()["whole"].notes = "mine"
    Ledger(store, later).open(plan([whole], store, "later"), "axosweep", "is it the rate?")
    assert said(store, server, later)[whole.key] == "its note added"
    assert server.runs()["whole"].notes == "mine\nis it the rate?"
    server.runs()["whole"].notes = "it is the rate"
    assert said(store, server, later)[whole.key] == "up to date"
    assert not server.world.unknown


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, r"needs a key for api\.forge\.coreweave\.com.*wandb login"),
        (
            {"WANDB_API_KEY": "k" * 40, "WANDB_BASE_URL": "http://127.0.0.1:9"},
            r"does not answer at http://127\.0\.0\.1:9",
        ),
    ],
)
def test_what_cannot_be_uploaded_now_is_one_message(
    store: Store, monkeypatch: pytest.MonkeyPatch, environment: Mapping[str, str], message: str
) -> None:
    one = run({"learning_rate": 1e-3})
    sweep = open_sweep(store, [one]).sweep
    tracked(store, one, "one", sweep)
    finish_run(store, one, {0: 1.0})
    for name in ("WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(store.root / "netrc"))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    from runner.command.sync import sync
    from runner.errors import SweepError

    with pytest.raises(SweepError, match=message):
        sync(store, sweep, as_json=False)


@pytest.mark.slow
def test_a_key_that_wandb_does_not_know_is_one_message(store: Store, server: WandbServer) -> None:
    one = run({"learning_rate": 1e-3})
    sweep = open_sweep(store, [one]).sweep
    tracked(store, one, "one", sweep)
    finish_run(store, one, {0: 1.0})
    done = subprocess.run(
        [*COMMAND, "sync", sweep, "--store", str(store.root)],
        env={**os.environ, **server.environment(), "WANDB_API_KEY": "w" * 40}, capture_output=True, text=True,
        cwd=store.root, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "user is not logged in. Is the key right?" in done.stderr
    assert not server.runs()


def test_nothing_to_do_needs_no_key(store: Store) -> None:
    sweep = open_sweep(store, [run({"learning_rate": 1e-3})]).sweep
    done = axosweep(store, None, "sync", sweep)
    assert done.returncode == 0, done.stderr
    assert "was never tracked" in done.stdout


def test_rows_are_those_that_the_trainer_would_have_logged_the_last_of_each_step(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [
        {"step": 1, "attempt": 1, "time": 1, "loss": 5.0, "epoch": 0.5, "tokens": 1, "tokens/total": 2},
        {"step": 2, "attempt": 1, "time": 1, "loss": 4.0},
        {"step": 2, "attempt": 2, "time": 1, "loss": None, "not_finite": ["loss"]},
        {"step": 2, "attempt": 2, "time": 1, "eval_loss": 3.0, "eval_runtime": 1.0},
    ]
    path.write_text("\n".join(map(json.dumps, lines)) + '\n{"step": 3')
    rows = rows_of(path)
    assert rows[0] == {"train/loss": 5.0, "train/epoch": 0.5, "train/tokens/total": 2, "train/global_step": 1}
    assert math.isnan(rows[1].pop("train/loss"))
    assert rows[1:] == [{"train/global_step": 2}, {"eval/loss": 3.0, "eval/runtime": 1.0, "train/global_step": 2}]
    logged: dict[str, Any] = {"train/global_step": 1, "train/loss": 5.0}
    history = [logged, {"train/global_step": 1, "train_runtime": 1}]
    assert [row["train/global_step"] for row in missing(rows, history)] == [2, 2]
