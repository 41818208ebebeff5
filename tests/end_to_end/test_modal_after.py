"""merge and eval on Modal: the unmodified client and the real worker, against the local Modal of tests/modal_server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.end_to_end.axosweep import Axosweep
from tests.modal_server import ModalServer
from tests.modal_server.fixture import needs_mounts

pytestmark = [pytest.mark.slow, needs_mounts]

ROOT = Path(__file__).resolve().parents[2]
QUIZ = ("--tasks", "tiny_directory", "--include-path", str(ROOT / "tiny" / "data"))
EXACT = "tasks/tiny_directory@limit=32/exact_match"


def test_a_run_on_modal_is_rated_asked_and_merged_where_it_is(on_modal: Axosweep, server: ModalServer) -> None:
    done = on_modal.run("lora=r32", "learning_rate=4e-3", "tracking=disabled", "executor=modal")
    assert done.returncode == 0, done.stderr
    (row,) = on_modal.json("compare")["runs"]

    rated = {one["run"]: one["metrics"]["eval_loss"] for one in on_modal.json("eval", "--base")["lines"]}
    assert rated[row["key"]] == pytest.approx(row["final"], abs=5e-5)
    assert rated[None] == pytest.approx(row["first"], abs=5e-5)

    asked = {
        one["run"]: one["metrics"][EXACT] for one in on_modal.json("eval", "--base", *QUIZ, "--limit", "32")["lines"]
    }
    assert asked[None] <= 0.1
    assert asked[row["key"]] >= 0.6
    assert on_modal.json("compare", "--metric", EXACT)["runs"][0]["final"] == asked[row["key"]]

    made = on_modal.json("merge")
    assert (made["run"], made["status"]) == (row["key"], "succeeded")
    volume = server.volume_tree("axosweep-runs")
    (model,) = (volume / "runs" / row["key"] / "merge").glob("*/model")
    manifest = json.loads((model.parent / "manifest.json").read_text())
    sizes = {path.relative_to(model).as_posix(): path.stat().st_size for path in model.rglob("*") if path.is_file()}
    assert sizes == {name: one["bytes"] for name, one in manifest["files"].items()}
    assert "on the runs Volume, runs/" in on_modal.run("merge").stdout

    calls = len(server.function_calls("after"))
    assert calls == 5, "two evaluations of the run and of its base model, and a merge"
    for words in (("eval", "--base"), ("eval", "--base", *QUIZ, "--limit", "32"), ("merge",)):
        assert on_modal.run(*words).returncode == 0
    assert len(server.function_calls("after")) == calls
    assert not server.unknown_calls()


def test_a_task_that_there_is_not_ends_the_step_before_it_loads_a_model(
    on_modal: Axosweep, server: ModalServer
) -> None:
    """This machine has no trainer that could have been asked."""
    done = on_modal.run("lora=r8", "max_steps=2", "tracking=disabled", "executor=modal")
    assert done.returncode == 0, done.stderr
    nowhere = {**on_modal.environment, "AXOSWEEP_TRAINER": str(on_modal.folder / "nowhere")}
    failed = Axosweep(on_modal.store, on_modal.folder, nowhere).run("eval", "--tasks", "hellaswagg", "--json")
    assert failed.returncode == 1
    (line,) = json.loads(failed.stdout)["lines"]
    assert line["status"] == "failed"
    assert "no task hellaswagg (did you mean hellaswag" in line["message"]
    log = next(server.volume_tree("axosweep-runs").glob("runs/*/evaluate/*/attempt-1/log.txt"))
    assert "loading model" not in log.read_text().lower()
