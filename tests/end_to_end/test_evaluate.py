"""`axosweep eval` with the real Axolotl and the real lm-evaluation-harness, on runs that have really been trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from modal_app.store.layout import Store
from modal_app.store.step import StepKind
from tests.end_to_end.axosweep import Axosweep

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
QUIZ = ("--tasks", "tiny_directory", "--include-path", str(ROOT / "tiny" / "data"))
EXACT = "tasks/tiny_directory/exact_match"


def lines_of(axosweep: Axosweep, *words: str) -> dict[str | None, dict[str, Any]]:
    """What `eval` prints for each run; under None, for the base model."""
    return {one["run"]: one for one in axosweep.json("eval", *words)["lines"]}


def attempts(store: Store) -> list[Path]:
    return sorted(store.runs.glob("*/evaluate/*/attempt-*"))


def fingerprint(store: Store, key: str) -> dict[str, int]:
    """Every file of a run and of the dataset that it read, with the time it was written."""
    places = [store.folder(StepKind.TRAIN, key).path, *store.prepared.iterdir()]
    files = [path for place in places for path in place.rglob("*") if "evaluate" not in path.parts and path.is_file()]
    return {str(path): path.stat().st_mtime_ns for path in files}


@pytest.fixture(scope="module")
def rated(trained: Axosweep) -> dict[str | None, dict[str, Any]]:
    return lines_of(trained, "--base")


@pytest.fixture(scope="module")
def asked(trained: Axosweep) -> dict[str | None, dict[str, Any]]:
    return lines_of(trained, "--base", *QUIZ)


def test_the_loss_is_that_of_the_last_evaluation_in_training_and_without_the_adapter_that_of_the_first(
    trained: Axosweep, rated: dict[str | None, dict[str, Any]]
) -> None:
    rows = {row["key"]: row for row in trained.json("compare")["runs"]}
    assert rated.keys() == {None, *rows}
    for key, row in rows.items():
        assert rated[key]["metrics"]["eval_loss"] == pytest.approx(row["final"], abs=5e-5)
        assert rated[key]["rows"] == 87
        assert rated[None]["metrics"]["eval_loss"] == pytest.approx(row["first"], abs=5e-5)
        assert rated[None]["metrics"]["eval_loss"] > row["final"] + 1


def test_a_second_request_is_answered_from_the_store(
    trained: Axosweep, rated: dict[str | None, dict[str, Any]]
) -> None:
    before = attempts(trained.store)
    assert lines_of(trained, "--base") == rated
    assert attempts(trained.store) == before


def test_it_leaves_the_run_and_its_dataset_as_they_are(trained: Axosweep) -> None:
    key = next(iter(trained.json("compare")["runs"]))["key"]
    before = fingerprint(trained.store, key)
    done = trained.run("eval", key, *QUIZ, "--limit", "2")
    assert done.returncode == 0, done.stderr
    shutil.rmtree(trained.store.runs / key / "evaluate")
    assert lines_of(trained, key)[key]["status"] == "succeeded"
    assert fingerprint(trained.store, key) == before


def test_a_users_own_task_distinguishes_the_trained_from_the_untrained(asked: dict[str | None, dict[str, Any]]) -> None:
    exact = {run: line["metrics"][EXACT] for run, line in asked.items()}
    assert exact.pop(None) <= 0.1
    assert max(exact.values()) >= 0.6
    prompts = (ROOT / "tiny" / "data" / "prompts.jsonl").read_text().splitlines()
    assert {line["documents"]["tiny_directory"] for line in asked.values()} == {len(prompts)}
    assert all(line["templated"] for line in asked.values())


def test_compare_ranks_by_it_and_the_report_shows_it(
    trained: Axosweep, asked: dict[str | None, dict[str, Any]]
) -> None:
    rows = trained.json("compare", "--metric", EXACT)["runs"]
    assert [row["final"] for row in rows] == sorted((row["final"] for row in rows), reverse=True)
    assert {row["key"]: row["final"] for row in rows} == {
        run: line["metrics"][EXACT] for run, line in asked.items() if run
    }
    assert [row["is_best"] for row in rows] == [True, False]
    assert "tiny_directory/exact_match" in trained.run("compare").stdout


def test_the_model_is_prompted_in_its_chat_template_unless_that_is_refused(trained: Axosweep) -> None:
    best = trained.json("compare")["runs"][0]["key"]
    plain = lines_of(trained, best, *QUIZ, "--no-chat-template", "--limit", "16")[best]
    assert plain["metrics"]["tasks/tiny_directory@limit=16,plain/exact_match"] <= 0.2
    assert not plain["templated"]


def test_an_edited_task_is_another_question(trained: Axosweep, tmp_path: Path) -> None:
    own = tmp_path / "own"
    shutil.copytree(ROOT / "tiny" / "data", own)
    words = ("--best", "--tasks", "tiny_directory", "--include-path", str(own))
    prompts = own / "prompts.jsonl"
    prompts.write_text("\n".join(prompts.read_text().splitlines()[:8]))
    (line,) = lines_of(trained, *words).values()
    assert line["documents"] == {"tiny_directory": 8}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--tasks", "tiny_directry", "--include-path", str(ROOT / "tiny" / "data")), "did you mean tiny_directory"),
        (("--tasks", "hellaswagg"), "did you mean hellaswag"),
    ],
)
def test_a_task_that_there_is_not_is_refused_before_anything_starts(
    trained: Axosweep, words: tuple[str, ...], said: str
) -> None:
    before = attempts(trained.store)
    done = trained.run("eval", *words)
    assert done.returncode == 2
    assert "The lm-evaluation-harness has no task" in done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert attempts(trained.store) == before


def test_the_task_files_of_the_harness_are_read_once_and_again_when_they_have_changed(trained: Axosweep) -> None:
    words, index = ("eval", "--tasks", "hellaswagg"), trained.store.cache / "tasks.json"
    trained.run(*words)
    kept = json.loads(index.read_text())
    renamed = kept | {"tasks": {"hellaswaggs": kept["tasks"]["hellaswag"]}}
    index.write_text(json.dumps(renamed))
    assert "did you mean hellaswaggs?" in trained.run(*words).stderr
    index.write_text(json.dumps(renamed | {"files": "of another harness"}))
    assert "did you mean hellaswag" in (said := trained.run(*words).stderr)
    assert "hellaswaggs" not in said
    assert json.loads(index.read_text()) == kept


def test_a_task_whose_dataset_cannot_be_reached_says_so_and_does_not_ask_again(
    trained: Axosweep,
) -> None:
    """It is not taken from this machine's cache of the hub, either: an evaluation has a cache of its own."""
    hub = "http://127.0.0.1:9"
    alone = Axosweep(trained.store, trained.folder, {"HF_ENDPOINT": hub})
    before = attempts(trained.store)
    done = alone.run("eval", "--best", "--tasks", "arc_easy", "--limit", "1", "--json")
    assert done.returncode == 1, done.stderr
    (line,) = json.loads(done.stdout)["lines"]
    assert line["message"] == f"Couldn't reach 'allenai/ai2_arc' on the Hub: {hub} does not answer (ConnectError)"
    (attempt,) = set(attempts(trained.store)) - set(before)
    assert "Retrying in" not in (attempt / "log.txt").read_text()


def test_an_adapter_that_is_gone_is_a_failure_and_not_the_base_models_loss(trained: Axosweep, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    shutil.copytree(trained.store.root, store.root, symlinks=True, ignore=shutil.ignore_patterns("evaluate"))
    elsewhere = Axosweep(store, trained.folder)
    best, other = (row["key"] for row in elsewhere.json("compare")["runs"])
    (store.folder(StepKind.TRAIN, best).model / "adapter_config.json").unlink()
    done = elsewhere.run("eval", "--json")
    assert done.returncode == 1
    lines = {one["run"]: one for one in json.loads(done.stdout)["lines"]}
    assert (lines[best]["status"], lines[best]["metrics"]) == ("failed", {})
    assert "adapter_config.json is missing" in lines[best]["message"]
    assert lines[other]["metrics"]["eval_loss"] < 1
