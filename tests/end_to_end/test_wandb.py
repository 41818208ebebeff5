"""Runs of the real trainer as W&B's own reader sees them: synced from offline, killed, stopped, continued.

The service is the fake one of tests/wandb_server; the SDK, in the trainer and here, is real.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modal_app.held_out.row_losses import RowLosses
from modal_app.store.layout import Store
from modal_app.store.step import StepKind
from runner.compare.metrics import read_curves
from tests.end_to_end.axosweep import UNPADDED, Axosweep, held_by, kill, wait_until
from tests.end_to_end.on_modal import with_axolotl
from tests.end_to_end.own_code import write_slow_plugin
from tests.modal_server import ModalServer
from tests.modal_server.fixture import needs_mounts
from tests.wandb_server import Run, WandbServer, serve_wandb

pytestmark = pytest.mark.slow

FEW = ("data.limit=200", UNPADDED)
LONG = (
    "data.limit=200", "micro_batch_size=4", "max_steps=24", "save_steps=3", "logging_steps=1",
    "plugins=[slow.Slow]",
)  # fmt: skip
SCRIPT = Path(__file__).with_name("wandb_group_script.py")
NOTE = "is rank 8, not 4, worth it?"
NOT_IN_WANDB = {"folder", "log", "store", "attempts", "record", "overrides", "message", "reason"}


@pytest.fixture
def server() -> Iterator[WandbServer]:
    with serve_wandb() as server:
        yield server


def asks(axosweep: Axosweep, server: WandbServer) -> Axosweep:
    return axosweep.with_variables(server.environment())


def read(axosweep: Axosweep, **filters: Any) -> list[dict[str, Any]]:
    """What W&B has of some runs, as the SDK's own reader returns it."""
    done = subprocess.run(
        [sys.executable, "-P", SCRIPT, json.dumps(filters)], env=axosweep.variables(), cwd=axosweep.folder,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def by_step(rows: list[dict[str, Any]], name: str, step: str) -> dict[int, float]:
    return {row[step]: row[name] for row in rows if name in row}


def sweeps(axosweep: Axosweep) -> set[str]:
    return {path.parent.name for path in axosweep.store.sweeps.glob("*/plan.json")}


def test_an_offline_sweep_that_is_synced_is_in_wandb_what_it_is_here(axosweep: Axosweep, server: WandbServer) -> None:
    done = axosweep.run(
        "-m", "lora=r4,r8", "learning_rate=1e-3,3e-3", "max_steps=6", *FEW, "executor.parallel=2", "--note", NOTE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"Note: {NOTE}\n" in done.stdout
    (sweep,) = sweeps(axosweep)
    assert [one["note"] for one in axosweep.json("status")["sweeps"]] == [NOTE]
    assert json.dumps(NOTE) in (axosweep.store.sweeps / sweep / "report.html").read_text()
    online = asks(axosweep, server)
    synced = online.run("sync")
    assert synced.returncode == 0, synced.stderr
    assert synced.stdout.count("1 offline part uploaded") == 4

    runs = {run["config"]["run_key"]: run for run in read(online, group=sweep)}
    rows = {row["key"]: row for row in axosweep.json("compare")["runs"]}
    assert len(rows) == 4
    assert {key: row["params"] for key, row in rows.items()} == {
        key: {name: run["config"][name] for name in ("learning_rate", "lora_r")} for key, run in runs.items()
    }
    for key, run in runs.items():
        assert (run["state"], run["job_type"], run["tags"]) == ("finished", "train", [])
        assert run["name"] == " ".join(f"{name}={value:g}" for name, value in rows[key]["params"].items())
        assert run["config"]["eval_fingerprint"] == rows[key]["eval_fingerprint"]
        assert run["config"]["data_key"]
        assert run["notes"] == NOTE
        assert "axosweep.yml" in run["files"]
        assert run["summary"]["seconds"] == rows[key]["seconds"]
        assert run["summary"]["train_seconds"] > 0
        assert run["summary"]["receipt/train"] == rows[key]["receipt"]["parts"]["train"] > 0
        agree(axosweep.store.folder(StepKind.TRAIN, key).path, run)
        has_every_key(axosweep.store, key, run["config"])
        has_verdict(axosweep.json("compare")["verdicts"][0], key, run["summary"])
        has_rows(axosweep.store, server, key, run["summary"])

    asked = ("compare", "--json")
    here, there = (json.loads(online.run(*asked, *words).stdout) for words in ((), ("--from", "wandb")))
    assert [without(row) for row in there["runs"]] == [without(row) for row in here["runs"]]
    assert all(row[name] is None for row in there["runs"] for name in ("folder", "log", "attempts", "store"))
    elsewhere = online.run(*asked, "--from", "wandb", sweep, "--store", str(axosweep.folder / "empty"))
    assert json.loads(elsewhere.stdout) == there, elsewhere.stderr

    assert {told["said"] for told in online.json("sync")["runs"]} == {"up to date"}
    assert all(len(run.history) == len(runs[run.settings["run_key"]]["history"]) for run in server.runs().values())
    assert not server.world.unknown

    # Another sweep, over something else: W&B groups the runs of both by a key that only one of them varies.
    other = axosweep.run("lora=r4", "weight_decay=0.1", "max_steps=6", *FEW, "name=other")
    assert other.returncode == 0, other.stderr
    assert online.run("sync").returncode == 0
    of_rank_4 = read(online, **{"config.lora_r.value": 4})
    assert sorted(run["config"]["weight_decay"] for run in of_rank_4) == [0, 0, 0.1]
    assert len({run["group"] for run in of_rank_4}) == 2


def has_every_key(store: Store, key: str, config: dict[str, Any]) -> None:
    """Axolotl's keys in the config of a run, under their own names; models by the names that the user gave."""
    asked = json.loads(store.folder(StepKind.TRAIN, key).identity.read_text())["axolotl"]
    assert {name: config.get(name) for name in asked} == asked
    assert config["_name_or_path"] == asked["base_model"]
    assert "inputs/" not in json.dumps(config)


def has_verdict(verdict: dict[str, Any], key: str, summary: dict[str, Any]) -> None:
    setting = next(one for one in verdict["settings"] if key in one["runs"])
    told = {name: summary[f"verdict/{name}"] for name in ("difference", "low", "high", "in_best_group")}
    assert told == {name: setting[name] for name in told}
    assert summary["verdict/text"] == verdict["sentences"][0]


def has_rows(store: Store, server: WandbServer, key: str, summary: dict[str, Any]) -> None:
    """The table of a run's per-row losses, among its files."""
    losses = RowLosses.read(store.folder(StepKind.TRAIN, key).losses)
    assert losses is not None
    (run,) = (one for one in server.runs().values() if one.settings["run_key"] == key)
    table = json.loads(run.files[summary["held_out/rows"]["path"]])
    assert table["columns"] == ["id", "dataset", "tokens", "nll"]
    rows = {row[0]: row[2:] for row in table["data"]}
    assert rows == {
        f"{id:016x}": [tokens, nll]
        for id, tokens, nll in zip(losses.id, losses.row_tokens, losses.row_nll, strict=True)
    }


def without(row: dict[str, Any]) -> dict[str, Any]:
    """What docs/compare.md says W&B can tell of a row."""
    return {name: value for name, value in row.items() if name not in NOT_IN_WANDB}


def agree(folder: Path, run: dict[str, Any]) -> None:
    """W&B's history and summary, metrics.jsonl and transformers' own log have the same values for each step."""
    curves = read_curves(folder / "metrics.jsonl").by_name
    newest = max(folder.glob("model/checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    trainer = json.loads((newest / "trainer_state.json").read_text())["log_history"]
    for ours, theirs in (("loss", "train/loss"), ("eval_loss", "eval/loss")):
        history = by_step(run["history"], theirs, "train/global_step")
        assert history == dict(curves[ours])
        assert max(history) == 6
        assert run["summary"][theirs] == history[6]
        logged = by_step(trainer, ours, "step")
        assert logged
        assert logged.items() <= history.items()


def test_the_runs_of_an_online_sweep_are_attached_to_one_sweep_object(axosweep: Axosweep, server: WandbServer) -> None:
    wanted = ("tracking=wandb", "tracking.project=mine", "tracking.sweep_object=true")
    done = asks(axosweep, server).run("-m", "lora=r4,r8", "max_steps=2", *FEW, *wanted)
    assert done.returncode == 0, done.stderr
    (sweep,) = sweeps(axosweep)
    (made,) = server.world.sweeps
    assert (made.project, made.config["parameters"]) == ("mine", {"lora_r": {"values": [4, 8]}})
    runs = server.runs("mine").values()
    assert [(run.sweep, run.group, run.state) for run in runs] == [(made.id, sweep, "finished")] * 2
    assert {run.settings["lora_r"] for run in runs} == {4, 8}
    (verdict,) = axosweep.json("compare")["verdicts"]
    for run in runs:
        has_verdict(verdict, run.settings["run_key"], run.summary)
        assert run.summary["receipt/load"] > 0
    assert not server.world.unknown


def training(axosweep: Axosweep) -> tuple[str, int] | None:
    """A run that has taken seven steps, and its process."""
    for key in axosweep.run_keys():
        metrics = axosweep.store.folder(StepKind.TRAIN, key).metrics
        if metrics.exists() and metrics.read_text().count('"loss"') >= 7:
            pid = held_by(axosweep.store, StepKind.TRAIN, key)
            return (key, pid) if pid else None
    return None


def test_a_run_killed_and_finished_by_a_second_sweep_is_one_run_with_every_step(
    axosweep: Axosweep, server: WandbServer
) -> None:
    write_slow_plugin(axosweep.folder)
    launcher = axosweep.start("lora=r4", *LONG)
    wait_until(lambda: training(axosweep) is not None, "seven steps")
    found = training(axosweep)
    assert found is not None
    kill(found[1])
    launcher.communicate(timeout=300)
    (first,) = sweeps(axosweep)
    online = asks(axosweep, server)
    assert online.run("sync").returncode == 0
    (killed,) = server.runs().values()
    assert killed.state == "failed"
    assert_every_step(axosweep, found[0], killed)

    again = axosweep.run("lora=r4", "name=second", *LONG)
    assert again.returncode == 0, again.stderr
    (second,) = sweeps(axosweep) - {first}
    assert online.run("sync", second).returncode == 0
    (run,) = server.runs().values()
    assert (run.state, run.group, run.tags) == ("finished", first, [f"sweep:{second}"])
    assert [row["_step"] for row in run.history] == list(range(len(run.history)))
    assert sorted(run.values("train/loss")) == list(range(1, 25))
    assert_every_step(axosweep, found[0], run)


def assert_every_step(axosweep: Axosweep, key: str, run: Run) -> None:
    curves = read_curves(axosweep.store.folder(StepKind.TRAIN, key).metrics)
    for ours, theirs in (("loss", "train/loss"), ("eval_loss", "eval/loss")):
        assert run.values(theirs) == dict(curves.by_name[ours])
        assert run.summary[theirs] == curves.final(ours)


def test_a_run_that_is_stopped_while_it_tracks_online_is_preempted_and_goes_on_in_the_same_run(
    axosweep: Axosweep, server: WandbServer
) -> None:
    secrets = {**server.environment(), "HF_TOKEN": "hf_never_to_be_seen"}
    online = axosweep.with_variables(secrets)
    words = ("lora=r4", "tracking=wandb", *LONG)
    write_slow_plugin(axosweep.folder)
    launcher = online.start(*words)
    wait_until(lambda: training(axosweep) is not None, "seven steps")
    found = training(axosweep)
    assert found is not None
    launcher.send_signal(signal.SIGTERM)
    launcher.communicate(timeout=300)
    (run,) = server.runs().values()
    assert run.state == "preempted"
    assert_every_step(axosweep, found[0], run)

    run.tags, run.notes = ["mine"], "as I wrote it there"
    of_the_user = {"WANDB_TAGS": "of the user", "WANDB_NOTES": "of the user"}
    done = axosweep.with_variables(secrets | of_the_user).run(*words)
    assert done.returncode == 0, done.stderr
    (run,) = server.runs().values()
    assert (run.state, run.tags, run.notes) == ("finished", ["mine"], "as I wrote it there")
    assert [row["_step"] for row in run.history] == list(range(len(run.history)))
    assert_every_step(axosweep, found[0], run)
    sent = json.dumps([run.config, run.summary, run.lines]) + "".join(map(str, run.files.values()))
    assert "train/loss" in sent
    assert not any(secrets[name] in sent for name in ("WANDB_API_KEY", "HF_TOKEN"))
    assert not server.world.unknown


@needs_mounts
def test_what_ran_offline_on_modal_is_synced_from_its_volume(axosweep: Axosweep, server: WandbServer) -> None:
    with ModalServer(with_axolotl()) as modal_server:
        modal_server.set_secret("secrets-hf-wandb", {"HUGGINGFACE_TOKEN": "hf_test"})
        environment = {**modal_server.environment(), **server.environment()}
        on_modal = Axosweep(axosweep.store, axosweep.folder, environment)
        words = ("-m", "lora=r4,r8", "max_steps=4", *FEW, "executor=modal", "executor.parallel=1")
        refused = on_modal.run(*words, "tracking=wandb")
        assert refused.returncode == 2
        assert "secrets-hf-wandb has no WANDB_API_KEY" in refused.stderr
        assert not modal_server.function_calls()

        done = on_modal.run(*words)
        assert done.returncode == 0, done.stderr
        assert not server.runs()
        ends = [line for line in modal_server.log().splitlines() if "takes no further call" in line]
        assert not ends
        assert len(modal_server.tasks("train")) == 1, "W&B leaves nothing in a container, so it takes the next run"
        synced = on_modal.run("sync")
        assert synced.returncode == 0, synced.stderr
        assert synced.stdout.count("1 offline part uploaded") == 2
        row = min(on_modal.json("compare")["runs"], key=lambda row: row["params"]["lora_r"])
        run = next(run for run in server.runs().values() if run.settings["run_key"] == row["key"])
        assert (run.state, run.settings["run_key"]) == ("finished", row["key"])
        assert run.summary["paid_seconds"] == row["paid_seconds"]
        assert run.summary["dollars"] == row["dollars"]
        assert run.summary["receipt/boot"] == row["receipt"]["parts"]["boot"] > 0
        assert run.summary["receipt/containers"] == row["receipt"]["containers"][0]["container"]
        assert len(run.values("train/loss")) == 4
        assert "up to date" in on_modal.run("sync").stdout
