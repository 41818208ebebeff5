"""`axosweep infer` with the real Axolotl, on runs that have really been trained: whether they have learned anything."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from modal_app.store.layout import BASE_MODEL_KEY, Store
from runner.html_report.gather import gather
from tests.end_to_end.axosweep import Axosweep

pytestmark = pytest.mark.slow

PROMPTS = Path(__file__).resolve().parents[2] / "tiny" / "data" / "prompts.jsonl"
ASKED = ("infer", "--greedy", "--prompts", str(PROMPTS))


def attempts(store: Store) -> list[Path]:
    return sorted(store.runs.glob("*/infer/*/attempt-*"))


def by_run(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["run"], []).append(row)
    return found


def exact(rows: list[dict[str, Any]]) -> float:
    """The share of right answers, counted again from the prompts' file."""
    right = {row["prompt"]: row["answer"] for row in map(json.loads, PROMPTS.read_text().splitlines())}
    assert {row["prompt"] for row in rows} == set(right)
    assert [row["exact"] for row in rows] == [row["output"] == right[row["prompt"]] for row in rows]
    return float(sum(row["exact"] for row in rows) / len(rows))


def best_of(trained: Axosweep) -> str:
    return next(str(row["key"]) for row in trained.json("compare")["runs"] if row["is_best"])


def test_the_best_run_has_learned_what_its_base_model_does_not_know(trained: Axosweep) -> None:
    said = by_run(trained.json(*ASKED)["answers"])
    runs = [row["key"] for row in trained.json("compare")["runs"]]
    assert next(iter(said)) == BASE_MODEL_KEY
    assert set(said) == {BASE_MODEL_KEY, *runs}
    assert len(said[BASE_MODEL_KEY]) >= 100
    assert exact(said[BASE_MODEL_KEY]) <= 0.1
    assert exact(said[best_of(trained)]) >= 0.6

    before = attempts(trained.store)
    assert by_run(trained.json(*ASKED)["answers"]) == said
    alone = trained.json("infer", best_of(trained), *ASKED[1:])["answers"]
    assert alone == said[best_of(trained)]
    assert attempts(trained.store) == before  # done once


def test_two_runs_are_compared_row_by_row_with_the_texts_of_their_dataset(trained: Axosweep) -> None:
    first, second = trained.json("compare")["runs"]
    told = trained.json("compare", second["key"], first["key"])
    where = told["where"]
    assert (where["rows"], where["documents"], where["documents_known"], told["notes"]) == (87, 87, True, [])
    assert where["losses"] == pytest.approx([second["final"], first["final"]], rel=0.01), "batches are equally long"
    assert where["high"] < 0, "rank 32 is better than rank 4 on these rows"
    row = where["better"][0]
    assert row["dataset"].endswith("tiny/data/train.jsonl")
    assert "<|user|>" in row["text"][0]["text"]
    assert [one["trained"] for one in row["text"]] == [False, True]


def test_the_report_of_the_sweep_has_the_table(trained: Axosweep) -> None:
    said = by_run(trained.json(*ASKED)["answers"])
    (sweep,) = (path.name for path in trained.store.sweeps.iterdir())
    table = gather(trained.store, sweep)["answers"][0]
    assert table["columns"][0]["run"] == BASE_MODEL_KEY
    assert {column["run"]: column["said"] for column in table["columns"]} == {
        run: [row["output"] for row in rows] for run, rows in said.items()
    }


def test_the_merged_model_answers_as_the_adapter_does(trained: Axosweep) -> None:
    best = best_of(trained)
    assert trained.run("merge", best).returncode == 0
    merged = trained.json("infer", best, "--merged", *ASKED[1:])["answers"]
    adapter = trained.json("infer", best, *ASKED[1:])["answers"]
    assert len(merged) >= 100
    assert [row["output"] for row in merged] == [row["output"] for row in adapter]
    assert {row["merged"] for row in merged} == {True}
    asked = trained.store.runs.glob(f"{best}/infer/*/attempt-*/answering.yml")
    loaded = [yaml.safe_load(path.read_text()) for path in asked]
    merged_models = [one for one in loaded if "/merge/" in one["base_model"] and "adapter" not in one]
    assert len(merged_models) == 1  # and the merged model has answered


def test_one_question_is_answered_in_its_own_words_on_stdout(trained: Axosweep) -> None:
    row = json.loads(PROMPTS.read_text().splitlines()[0])
    done = trained.run("infer", best_of(trained), "--greedy", "--prompt", row["prompt"])
    assert (done.returncode, done.stdout) == (0, f"{row['answer']}\n")
    piped = subprocess.run(
        [sys.executable, "-m", "runner", "infer", best_of(trained), "--greedy", "--prompts", "-"],
        input=f"{row['prompt']}\n", cwd=trained.folder, env=trained.variables(), capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert piped.stdout == done.stdout


def test_a_prompt_that_only_the_tokenizer_finds_too_long_fails_in_one_line_and_leaves_no_answers(
    trained: Axosweep, tmp_path: Path
) -> None:
    long = tmp_path / "long.txt"
    long.write_text("where does Ada live?\n" + "which pet does Ben have? " * 100)
    done = trained.run("infer", best_of(trained), "--greedy", "--prompts", str(long))
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("infer ") and "Its log" in line]
    assert "prompt 2 has" in line
    assert "the model reads 256 at most" in line
    failed = {path.parent for path in attempts(trained.store)} - {
        path.parent for path in trained.store.runs.glob("*/infer/*/result.json")
    }
    assert [sorted(path.name for path in one.iterdir()) for one in failed] == [["attempt-1", "latest", "lock"]]


def test_a_full_disk_is_reported_in_one_line_and_leaves_nothing_half_written(trained: Axosweep) -> None:
    best = best_of(trained)
    place = trained.store.runs / best / "infer"
    place.mkdir(exist_ok=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        done = trained.run("infer", best, "--greedy", "--prompts", str(PROMPTS))
        left = [path.name for path in place.glob("*/*")]
    finally:
        subprocess.run(["umount", place], check=True)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("infer ") and "Its log" in line]
    assert "The disk of" in line
    assert "Traceback" not in done.stderr
    assert sorted(left) == ["attempt-1", "latest", "lock"]
