"""ReLoRA from the command line, on two ranks: every later verb treats its result as a complete model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modal_app.store.step import StepKind
from tests.end_to_end.axosweep import UNPADDED, Axosweep, kill_all
from tests.modal_app.rows import read_rows, trainers_loss

pytestmark = pytest.mark.slow

RELORA = ("relora=true", "jagged_restart_steps=15", "relora_prune_method=reset", "max_steps=40", "micro_batch_size=8",
          UNPADDED, "tracking=disabled")  # fmt: skip


@pytest.fixture(scope="module")
def relora(waiting: Axosweep) -> Iterator[Axosweep]:
    waiting.empty()
    done = waiting.run(*RELORA, "lora=r8", "gpu.count=2")
    assert done.returncode == 0, done.stdout + done.stderr
    yield waiting
    kill_all(waiting.left_behind())


@pytest.fixture(scope="module")
def row(relora: Axosweep) -> dict[str, Any]:
    (row,) = relora.json("compare")["runs"]
    return dict(row)


def test_it_is_rated_and_answers_by_its_own_weights(relora: Axosweep, row: dict[str, Any]) -> None:
    assert row["final"] < row["first"]
    folder = relora.store.folder(StepKind.TRAIN, row["key"])
    for path, step in ((folder.losses_before, 0), (folder.losses, 40)):
        rows = read_rows(path)
        assert (rows.about.step, len(rows.id)) == (step, 87)
        assert trainers_loss(rows, ranks=2) == pytest.approx(rows.about.eval_loss, rel=1e-5)
    rated = {one["run"]: one["metrics"]["eval_loss"] for one in relora.json("eval", "--base")["lines"]}
    assert rated[row["key"]] == pytest.approx(row["final"], rel=0.03), "two ranks average over other batches"
    assert rated[None] == pytest.approx(row["first"], rel=0.03)
    asked = ("--greedy", "--max-tokens", "8", "--base", "--prompt", "Where does Ada live?")
    answers = relora.json("infer", row["key"], *asked)["answers"]
    assert len({one["output"] for one in answers}) == 2, "the base model answers something else"


def test_it_is_pushed_and_pulled_as_a_model_and_not_merged(
    relora: Axosweep, row: dict[str, Any], tmp_path: Path
) -> None:
    assert f"There is nothing to merge in {row['key']}: ReLoRA has merged" in relora.run("merge").stderr
    best = relora.json("best")
    assert (best["kind"], best["model"]) == ("model", str(relora.store.root / "runs" / row["key"] / "model"))
    refused = relora.run("pull", row["key"], "adapter", str(tmp_path / "adapter"))
    assert (refused.returncode, "it trained a complete model" in refused.stderr) == (2, True)
    assert relora.run("pull", row["key"], "model", str(tmp_path / "model")).returncode == 0
    pulled = {path.name for path in (tmp_path / "model").iterdir()}
    assert {"model.safetensors", "config.json"} <= pulled
    assert not [name for name in pulled if "adapter" in name]
    pushed = relora.run("push", row["key"], "ada/answers", "--dry-run")
    assert pushed.returncode == 0, pushed.stderr
    assert "library_name: transformers" in pushed.stdout
    assert "fine-tuned by ReLoRA" in pushed.stdout


def test_another_run_continues_from_it_and_one_without_relora_does_not(
    relora: Axosweep, row: dict[str, Any], tmp_path: Path
) -> None:
    begins = (f"from={row['key']}@40", "max_steps=42", "lora=r8", "gpu.count=2")
    refused = relora.run(*RELORA, *begins, "relora=false")
    assert refused.returncode == 2
    assert "relora is False, and was True there" in refused.stderr
    assert f"base_model={relora.store.root / 'runs' / row['key'] / 'model'}" in refused.stderr
    (after,) = relora.json(*RELORA, *begins)["runs"]
    assert after["status"] == "succeeded", after["message"]
    lines = [json.loads(line) for line in (Path(after["folder"]) / "metrics.jsonl").read_text().splitlines()]
    assert lines[0]["eval_loss"] == pytest.approx(row["final"], abs=5e-4)
