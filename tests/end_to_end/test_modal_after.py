"""merge and eval on Modal: the unmodified client and the real worker, against the local Modal of tests/modal_server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runner import trainer_environment
from tests.end_to_end.axosweep import Axosweep
from tests.hub_server import serve_hub
from tests.modal_server import ModalServer, Settings
from tests.modal_server.fixture import SECRET, needs_mounts

pytestmark = [pytest.mark.slow, needs_mounts]

ROOT = Path(__file__).resolve().parents[2]
QUIZ = ("--tasks", "tiny_directory", "--include-path", str(ROOT / "tiny" / "data"))
HUB_QUIZ = r"""
task: hub_quiz
dataset_path: owner/quiz
test_split: test
output_type: generate_until
doc_to_text: "{{prompt}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["\n"], max_gen_toks: 8}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
"""
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


def test_a_tasks_dataset_comes_from_the_hub_and_an_unknown_task_ends_the_step_before_it_loads_a_model(
    axosweep: Axosweep, tmp_path: Path
) -> None:
    """The models' cache is mounted read-only. This machine has no trainer that could have been asked for the names."""
    rows, own = tmp_path / "rows", tmp_path / "own"
    rows.mkdir()
    own.mkdir()
    (rows / "test.jsonl").write_text(
        "".join((ROOT / "tiny" / "data" / "prompts.jsonl").read_text().splitlines(True)[:4])
    )
    (own / "hub_quiz.yaml").write_text(HUB_QUIZ)
    with serve_hub() as hub, ModalServer(_settings(hub.url)) as server:
        hub.add("owner/quiz", rows, kind="datasets")
        server.set_secret("secrets-hf-wandb", SECRET)
        no_trainer = {"AXOSWEEP_TRAINER": str(axosweep.folder / "nowhere")}
        on_modal = Axosweep(axosweep.store, axosweep.folder, server.environment())
        here = Axosweep(axosweep.store, axosweep.folder, {**server.environment(), **no_trainer})
        done = on_modal.run("lora=r8", "max_steps=2", "tracking=disabled", "executor=modal")
        assert done.returncode == 0, done.stderr

        (line,) = here.json("eval", "--tasks", "hub_quiz", "--include-path", str(own))["lines"]
        assert line["documents"] == {"hub_quiz": 4}
        assert hub.asked["datasets/owner/quiz/test.jsonl"] == 1

        failed = here.run("eval", "--tasks", "hub_quizz", "--include-path", str(own), "--json")
        assert failed.returncode == 1
        (line,) = json.loads(failed.stdout)["lines"]
        assert line["status"] == "failed"
        assert "no task hub_quizz (did you mean hub_quiz" in line["message"]
        volume = server.volume_tree("axosweep-runs")
        said = [json.loads(path.read_text()) for path in volume.glob("runs/*/evaluate/*/attempt-1/result.json")]
        assert sorted("load" in one["facts"].get("phases", {}) for one in said) == [False, True]


def _settings(hub: str) -> Settings:
    return Settings(container_python=trainer_environment.find(), grace_s=10, container_environment={"HF_ENDPOINT": hub})
