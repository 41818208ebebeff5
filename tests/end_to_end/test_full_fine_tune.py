"""Follow-up steps of a run that has trained all weights: it is loaded on its own, and there is nothing to merge."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modal_app.store.layout import BASE_MODEL_KEY
from modal_app.store.step import StepKind
from tests.end_to_end.axosweep import UNPADDED, Axosweep, kill_all
from tests.modal_app.rows import evaluated_rows, read_rows, trainers_loss

pytestmark = pytest.mark.slow

PROMPTS = Path(__file__).resolve().parents[2] / "tiny" / "data" / "prompts.jsonl"


@pytest.fixture(scope="module")
def full(waiting: Axosweep) -> Iterator[Axosweep]:
    waiting.empty()
    done = waiting.run("lora=none", "learning_rate=2e-3", "max_steps=60", UNPADDED, "tracking=disabled")
    assert done.returncode == 0, done.stderr
    yield waiting
    kill_all(waiting.left_behind())


def test_it_is_rated_by_its_own_weights(full: Axosweep) -> None:
    (row,) = full.json("compare")["runs"]
    lines = {one["run"]: one for one in full.json("eval", "--base")["lines"]}
    assert lines[row["key"]]["metrics"]["eval_loss"] == pytest.approx(row["final"], abs=5e-5)
    assert lines[None]["metrics"]["eval_loss"] == pytest.approx(row["first"], abs=5e-5)
    folder = full.store.folder(StepKind.TRAIN, row["key"])
    evaluated = {run: evaluated_rows(full.store, run or BASE_MODEL_KEY) for run in lines}
    trained = {row["key"]: read_rows(folder.losses), None: read_rows(folder.losses_before)}
    for run, step in ((row["key"], 60), (None, 0)):
        told = lines[run]["metrics"]["eval_loss"]
        assert (evaluated[run].about.step, evaluated[run].about.eval_loss) == (step, told)
        assert trainers_loss(evaluated[run]) == pytest.approx(told, rel=1e-5)
        assert evaluated[run].id.tolist() == trained[run].id.tolist()
        assert evaluated[run].nll == pytest.approx(trained[run].nll, abs=1e-3)


def test_it_answers_with_its_own_weights(full: Axosweep) -> None:
    said: dict[str, list[dict[str, Any]]] = {}
    for row in full.json("infer", "--greedy", "--max-tokens", "8", "--prompts", str(PROMPTS))["answers"]:
        said.setdefault(row["run"], []).append(row)
    right = {row["prompt"]: row["answer"] for row in map(json.loads, PROMPTS.read_text().splitlines())}
    known = {run: sum(row["output"] == right[row["prompt"]] for row in rows) for run, rows in said.items()}
    (run,) = said.keys() - {BASE_MODEL_KEY}
    assert {row["prompt"] for row in said[run]} == set(right)
    assert [row["output"] for row in said[run]] != [row["output"] for row in said[BASE_MODEL_KEY]]
    assert known[run] > known[BASE_MODEL_KEY]


def test_there_is_nothing_to_merge_in_it(full: Axosweep) -> None:
    (row,) = full.json("compare")["runs"]
    refused = full.run("merge")
    assert refused.returncode == 2
    assert f"There is nothing to merge in {row['key']}: it is a full fine-tune" in refused.stderr
    refused = full.run("infer", "--merged", "--prompt", "hello")
    assert refused.returncode == 2
    assert "full fine-tune" in refused.stderr
