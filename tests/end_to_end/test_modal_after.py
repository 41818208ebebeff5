"""eval, merge and infer on Modal: the unmodified client and the real worker, against the local Modal of
tests/modal_server, on one run that has really been trained there.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runner.environment import trainer_environment
from tests.end_to_end.axosweep import UNPADDED, Axosweep
from tests.end_to_end.on_modal import RUNS, local_modal, machine, with_axolotl
from tests.hub_server import Hub, serve_hub
from tests.modal_server import ModalServer
from tests.modal_server.fixture import needs_mounts

pytestmark = [pytest.mark.slow, needs_mounts]

DATA = Path(__file__).resolve().parents[2] / "tiny" / "data"
PROMPTS = DATA / "prompts.jsonl"
ASKED = [json.loads(line) for line in PROMPTS.read_text().splitlines()[::2]]
"""Every second prompt, and its answer."""
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


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A dataset with four rows for questions."""
    rows = tmp_path_factory.mktemp("rows")
    (rows / "test.jsonl").write_text("".join(PROMPTS.read_text().splitlines(keepends=True)[:4]))
    with serve_hub() as hub:
        hub.add("owner/quiz", rows, kind="datasets")
        yield hub


@pytest.fixture(scope="module")
def no_tasks(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Path]:
    """The harness without its own tasks: more than ten thousand files, which a container reads for each evaluation.
    test_evaluate.py reads them, on this machine."""
    (package,) = trainer_environment.find().parent.parent.glob("lib/python*/site-packages/lm_eval/tasks")
    folder = tmp_path_factory.mktemp("tasks")
    shutil.copy(package / "__init__.py", folder)
    return {package: folder}


@pytest.fixture(scope="module")
def server(hub: Hub, no_tasks: dict[Path, Path]) -> Iterator[ModalServer]:
    with local_modal(with_axolotl(container_environment={"HF_ENDPOINT": hub.url}, replaced=no_tasks)) as server:
        yield server


@pytest.fixture(scope="module")
def on_modal(server: ModalServer, tmp_path_factory: pytest.TempPathFactory) -> Axosweep:
    """A place with a run that has learned its directory."""
    on_modal = machine(server, tmp_path_factory.mktemp("after") / "machine")
    once = ("num_epochs=1", "evals_per_epoch=1", "saves_per_epoch=1")
    done = on_modal.run("lora=r32", "learning_rate=4e-3", *once, UNPADDED, "tracking=disabled", "executor=modal")
    assert done.returncode == 0, done.stderr
    return on_modal


@pytest.fixture(scope="module")
def row(on_modal: Axosweep) -> dict[str, Any]:
    """The row of that run."""
    (row,) = on_modal.json("compare")["runs"]
    return dict(row)


def calls_of_asking_again(on_modal: Axosweep, server: ModalServer, *words: str) -> int:
    before = len(server.function_calls())
    assert on_modal.run(*words).returncode == 0
    return len(server.function_calls()) - before


def results(server: ModalServer, kind: str) -> list[dict[str, Any]]:
    """How the steps of that kind have ended, according to the Volume."""
    paths = server.volume_tree(RUNS).glob(f"runs/*/{kind}/*/attempt-1/result.json")
    return [json.loads(path.read_text()) for path in paths]


def test_it_is_rated_on_its_held_out_rows_as_in_training_and_so_is_its_base_model(
    on_modal: Axosweep, server: ModalServer, row: dict[str, Any]
) -> None:
    before = len(server.function_calls("after"))
    rated = {one["run"]: one["metrics"]["eval_loss"] for one in on_modal.json("eval", "--base")["lines"]}
    assert rated[row["key"]] == pytest.approx(row["final"], abs=5e-5)
    assert rated[None] == pytest.approx(row["first"], abs=5e-5)
    assert len(server.function_calls("after")) == before + 2
    assert calls_of_asking_again(on_modal, server, "eval", "--base") == 0
    assert not server.unknown_calls()


def test_it_is_rated_on_tasks_whose_dataset_may_come_from_the_hub_and_an_unknown_one_loads_no_model(
    on_modal: Axosweep, server: ModalServer, hub: Hub, row: dict[str, Any], tmp_path: Path
) -> None:
    """The models' cache is mounted read-only. This machine has no trainer that could check the names."""
    no_trainer = {"AXOSWEEP_TRAINER": str(on_modal.folder / "nowhere")}
    here = Axosweep(on_modal.store, on_modal.folder, {**on_modal.environment, **no_trainer})
    own = tmp_path / "own"
    own.mkdir()
    for name in ("tiny_directory.yaml", "prompts.jsonl"):
        shutil.copy(DATA / name, own)
    (own / "hub_quiz.yaml").write_text(HUB_QUIZ)

    asked = ("--include-path", str(own), "--limit", "32", "--tasks")
    quiz = ("eval", *asked, "tiny_directory,hub_quiz")
    (line,) = here.json(*quiz)["lines"]
    assert line["documents"] == {"tiny_directory": 32, "hub_quiz": 4}
    assert hub.asked["datasets/owner/quiz/test.jsonl"] == 1
    assert line["metrics"][EXACT] >= 0.6
    assert here.json("compare", "--metric", EXACT)["runs"][0]["final"] == line["metrics"][EXACT]
    assert calls_of_asking_again(here, server, *quiz) == 0

    failed = here.run("eval", *asked, "hub_quizz", "--json")
    assert failed.returncode == 1
    (line,) = json.loads(failed.stdout)["lines"]
    assert line["status"] == "failed"
    assert "no task hub_quizz (did you mean hub_quiz" in line["message"]
    loaded = {one["status"]: "load" in one["facts"].get("phases", {}) for one in results(server, "evaluate")}
    assert loaded == {"succeeded": True, "failed": False}


def test_it_answers_and_is_merged_where_it_lies_and_the_merged_model_answers_the_same(
    on_modal: Axosweep, server: ModalServer, row: dict[str, Any], tmp_path: Path
) -> None:
    before = len(server.function_calls("after"))
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(f"{json.dumps(one)}\n" for one in ASKED))
    greedy = ("--greedy", "--prompts", str(prompts))
    said = on_modal.json("infer", row["key"], *greedy)["answers"]
    right = {one["prompt"]: one["answer"] for one in ASKED}
    assert {one["prompt"] for one in said} == set(right)
    assert sum(one["output"] == right[one["prompt"]] for one in said) >= 0.6 * len(said)
    assert not (on_modal.store.root / "runs").exists()

    made = on_modal.json("merge")
    assert (made["run"], made["status"]) == (row["key"], "succeeded")
    (model,) = (server.volume_tree(RUNS) / "runs" / row["key"] / "merge").glob("*/model")
    manifest = json.loads((model.parent / "manifest.json").read_text())
    sizes = {path.relative_to(model).as_posix(): path.stat().st_size for path in model.rglob("*") if path.is_file()}
    assert sizes == {name: one["bytes"] for name, one in manifest["files"].items()}
    assert "on the runs Volume, runs/" in on_modal.run("merge").stdout

    merged = on_modal.json("infer", row["key"], "--merged", *greedy)["answers"]
    assert [one["output"] for one in merged] == [one["output"] for one in said]
    assert len(server.function_calls("after")) == before + 3, "requested twice, and merged once"
    assert calls_of_asking_again(on_modal, server, "infer", row["key"], *greedy) == 0
    assert not server.unknown_calls()


def test_relora_leaves_a_complete_model_there_that_is_rated_as_one_and_pulled(
    on_modal: Axosweep, server: ModalServer, tmp_path: Path
) -> None:
    words = ("relora=true", "jagged_restart_steps=6", "relora_prune_method=reset", "max_steps=15", "data.limit=200")
    small = (UNPADDED, "micro_batch_size=4", "lora=r8", "tracking=disabled", "executor=modal")
    (made,) = on_modal.json(*words, *small)["runs"]
    assert made["status"] == "succeeded", made["message"]
    (row,) = on_modal.json("compare")["runs"]
    (rated,) = on_modal.json("eval", made["key"])["lines"]
    assert rated["metrics"]["eval_loss"] == pytest.approx(row["final"], abs=5e-5)
    assert on_modal.run("pull", made["key"], "model", str(tmp_path / "model")).returncode == 0
    pulled = {path.name for path in (tmp_path / "model").iterdir()}
    assert {"model.safetensors", "config.json"} <= pulled
    assert "adapter_config.json" not in pulled
    assert not server.unknown_calls()
