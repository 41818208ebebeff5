"""`axosweep merge` with the real Axolotl, on runs that have really been trained."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from modal_app.store.layout import Store
from modal_app.store.step import StepKind
from tests.end_to_end.axosweep import Axosweep
from tests.modal_app.steps import ENVIRONMENT

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = Path(__file__).with_name("logit_distances_script.py")


@dataclass(frozen=True)
class Merged:
    """What `merge` prints for a run, and how far the model is from its base with the adapter, and without it: the
    largest difference in any logit."""

    said: dict[str, Any]
    with_adapter: float
    without: float


def merges(store: Store, key: str) -> list[Path]:
    return sorted((store.runs / key / "merge").glob("*/attempt-*"))


@pytest.fixture(scope="module")
def merged(trained: Axosweep, trainer: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Merged, Merged]:
    """The merged models of the best run: with its own adapter, and with the other run's. One process loads all of
    them."""
    best, other = (row["key"] for row in trained.json("compare")["runs"])
    foreign = tmp_path_factory.mktemp("merge") / "foreign"
    model = trained.store.folder(StepKind.TRAIN, other).model
    shutil.copytree(model, foreign, ignore=shutil.ignore_patterns("checkpoint-*"))
    said = [trained.json("merge", *words) for words in ((), ("--lora-model-dir", str(foreign)))]
    adapters = [trained.store.folder(StepKind.TRAIN, best).model, foreign]
    pairs = [path for one, adapter in zip(said, adapters, strict=True) for path in (one["model"], adapter)]
    done = subprocess.run(
        [trainer, SCRIPT, ROOT / "tiny" / "model", *pairs], capture_output=True, text=True, check=True,
        env={**ENVIRONMENT, "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    distances = [map(float, line.split()) for line in done.stdout.splitlines()]
    own, others = (Merged(one, *both) for one, both in zip(said, distances, strict=True))
    return own, others


def test_the_best_run_is_merged_into_a_model_that_loads_and_answers_as_base_and_adapter_do(
    trained: Axosweep, merged: tuple[Merged, Merged]
) -> None:
    own, _ = merged
    best = trained.json("compare")["runs"][0]["key"]
    assert (own.said["run"], own.said["status"]) == (best, "succeeded")
    assert own.with_adapter < 1e-3 < 1e-1 < own.without


def test_its_manifest_has_every_file_as_it_is(trained: Axosweep) -> None:
    made = trained.json("merge")
    model = Path(made["model"])
    manifest = json.loads((model.parent / "manifest.json").read_text())
    there = {path.relative_to(model).as_posix(): path for path in model.rglob("*") if path.is_file()}
    assert manifest["of"] == made["run"]
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= there.keys() == manifest["files"].keys()
    for name, path in there.items():
        content = path.read_bytes()
        described = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        assert manifest["files"][name] == described, name
    assert (made["files"], made["bytes"]) == (len(there), sum(path.stat().st_size for path in there.values()))


def test_a_second_request_merges_nothing(trained: Axosweep) -> None:
    made = trained.json("merge")
    before = merges(trained.store, made["run"])
    again = trained.run("merge", made["run"][:6])
    assert again.returncode == 0, again.stderr
    assert again.stdout.startswith(f"Merged: {made['run']}")
    assert made["model"] in again.stdout
    assert merges(trained.store, made["run"]) == before


def test_another_adapter_of_the_same_base_can_be_merged_in_the_runs_place(merged: tuple[Merged, Merged]) -> None:
    own, other = merged
    assert other.said["run"] == own.said["run"]
    assert other.said["model"] != own.said["model"]
    assert other.with_adapter < 1e-3 < 1e-1 < other.without


def test_what_is_not_an_adapter_is_refused(trained: Axosweep, tmp_path: Path) -> None:
    done = trained.run("merge", "--lora-model-dir", str(tmp_path))
    assert done.returncode == 2
    assert f"--lora-model-dir {tmp_path} is not an adapter" in done.stderr


def test_an_adapter_of_another_model_fails_in_one_line_and_leaves_no_model(trained: Axosweep, tmp_path: Path) -> None:
    best = trained.json("compare")["runs"][0]["key"]
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    config = json.loads((trained.store.folder(StepKind.TRAIN, best).model / "adapter_config.json").read_text())
    (foreign / "adapter_config.json").write_text(json.dumps(config))
    (foreign / "adapter_model.safetensors").write_bytes(b"no tensors")
    done = trained.run("merge", "--lora-model-dir", str(foreign), "--json")
    assert done.returncode == 1
    said = json.loads(done.stdout)
    assert (said["status"], said["model"]) == ("failed", None)
    assert said["message"]
    assert "Traceback" not in done.stderr
    assert len(list((trained.store.runs / best / "merge").glob("*/model"))) == len(
        list((trained.store.runs / best / "merge").glob("*/result.json"))
    )
