"""`axosweep merge` with the real Axolotl, on runs that have really been trained."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from modal_app.layout import Store
from modal_app.step import StepKind
from tests.end_to_end.axosweep import Axosweep

pytestmark = pytest.mark.slow

DISTANCE = """
import sys, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
merged, base, adapter = (AutoModelForCausalLM.from_pretrained(path) for path in (*sys.argv[1:3], sys.argv[2]))
adapter = PeftModel.from_pretrained(adapter, sys.argv[3])
ids = torch.arange(3, 40).unsqueeze(0)
with torch.no_grad():
    said = [model(ids).logits for model in (merged, adapter, base)]
print((said[0] - said[1]).abs().max().item(), (said[0] - said[2]).abs().max().item())
"""


def distances(trainer: Path, merged: Path, base: Path, adapter: Path) -> tuple[float, float]:
    """The largest difference in any logit between a merged model and its base with the adapter, and without."""
    done = subprocess.run(
        [trainer, "-c", DISTANCE, merged, base, adapter], capture_output=True, text=True, check=True,
        env={"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    with_adapter, without = done.stdout.split()
    return float(with_adapter), float(without)


def merges(store: Store, key: str) -> list[Path]:
    return sorted((store.runs / key / "merge").glob("*/attempt-*"))


def test_the_best_run_is_merged_into_a_model_that_loads_and_answers_as_base_and_adapter_do(
    trained: Axosweep, trainer: Path
) -> None:
    best = trained.json("compare")["runs"][0]["key"]
    made = trained.json("merge")
    assert (made["run"], made["status"]) == (best, "succeeded")
    root = Path(__file__).resolve().parents[2]
    adapter = trained.store.folder(StepKind.TRAIN, best).model
    with_adapter, without = distances(trainer, Path(made["model"]), root / "tiny" / "model", adapter)
    assert with_adapter < 1e-3 < 1e-1 < without


def test_its_manifest_holds_every_file_as_it_is(trained: Axosweep) -> None:
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


def test_asked_again_nothing_is_merged(trained: Axosweep) -> None:
    made = trained.json("merge")
    before = merges(trained.store, made["run"])
    again = trained.run("merge", made["run"][:6])
    assert again.returncode == 0, again.stderr
    assert again.stdout.startswith(f"Merged: {made['run']}")
    assert made["model"] in again.stdout
    assert merges(trained.store, made["run"]) == before


def test_another_adapter_of_the_same_base_can_be_merged_in_the_runs_place(
    trained: Axosweep, trainer: Path, tmp_path: Path
) -> None:
    best, other = (row["key"] for row in trained.json("compare")["runs"])
    foreign = tmp_path / "foreign"
    shutil.copytree(
        trained.store.folder(StepKind.TRAIN, other).model, foreign, ignore=shutil.ignore_patterns("checkpoint-*")
    )
    own = trained.json("merge")["model"]
    made = trained.json("merge", "--lora-model-dir", str(foreign))
    assert made["run"] == best
    assert made["model"] != own
    root = Path(__file__).resolve().parents[2]
    with_adapter, without = distances(trainer, Path(made["model"]), root / "tiny" / "model", foreign)
    assert with_adapter < 1e-3 < 1e-1 < without


def test_what_is_no_adapter_is_refused(trained: Axosweep, tmp_path: Path) -> None:
    done = trained.run("merge", "--lora-model-dir", str(tmp_path))
    assert done.returncode == 2
    assert f"--lora-model-dir {tmp_path}: no adapter is there" in done.stderr


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
