"""Run keys and data keys do not change: a user who has trained a run once never pays for it again after an update.

golden_keys.json was written by the version of November 2026. A change that moves a key on purpose renews the file
(AXOSWEEP_RENEW_GOLDEN=1), and says so in the changelog: every finished run of every user is trained again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from modal_app.store.layout import Store
from runner.keys.content import ContentHashes
from runner.keys.identity import split_by_gpu_type
from runner.launch.identify import identified
from runner.launch.start_checkpoint import with_start_checkpoints
from runner.types import Experiment, Run
from tests.runner import checkpointed

GOLDEN = Path(__file__).with_name("golden_keys.json")
LOCK = "0" * 64
"""Stands for the trainer's lock, which a newer Axolotl may change."""
COMMIT, OTHER = "c0ffee" + "0" * 34, "decaf0" + "0" * 34
HUB = (f"revision_of_model={COMMIT}", f"datasets.0.revision={OTHER}")
ROWS = [{"instruction": f"question {n}", "input": "", "output": f"answer {n}"} for n in range(8)]
BASE = """
base_model: owner/model
revision_of_model: {commit}
datasets: [{{path: rows.jsonl, type: alpaca}}]
sequence_len: 512
adapter: qlora
lora_r: 8
learning_rate: 2.0e-5
val_set_size: 0.1
seed: 7
"""
DPO = """
base_model: owner/model
revision_of_model: {commit}
rl: dpo
datasets: [{{path: owner/pairs, revision: {other}, type: chatml.intel, split: train}}]
learning_rate: 5.0e-6
"""
CASES: dict[str, Sequence[str]] = {
    "the tiny default": (),
    "two ranks and two rates": ("-m", "lora=r8,r16", "learning_rate=1e-3,3e-3"),
    "another seed": ("seed=7",),
    "another seed, which also draws the rows": ("seed=7", "data.seed=null"),
    "a seed of the data": ("data.seed=3", "data.limit=100"),
    "a full fine-tune": ("lora=none", "max_steps=10"),
    "two processes": ("gpu.count=2",),
    "a hub model and dataset": ("experiment=llama3_8b_alpaca", *HUB, "gpu=h100"),
    "another hub model": ("model=qwen3_8b", "dataset=alpaca_messages_2k", *HUB, "gpu=h100", "lora=qlora"),
    "a file of rows": ("dataset=local_alpaca", "data.path=rows.jsonl"),
    "a preference config": ("base=dpo.yml", "gpu=h100"),
    "a base file": ("-m", "base=mine.yml", "learning_rate=1e-4,2e-4", "gpu=h100"),
    "two cards under DeepSpeed": ("experiment=llama3_8b_alpaca", *HUB, "gpu=h100", "gpu.count=2", "deepspeed=zero2"),
    "a sweep over kinds of GPU": ("-m", *HUB, "experiment=llama3_8b_alpaca", "gpu=h100,a100_80gb"),
    "addresses and tracking": ("wandb_project=other", "tracking=wandb", "output_dir=elsewhere"),
    "a checkpoint of another run": ("from=RUN@10", "learning_rate=1e-4"),
}


def found_now(experiments: Sequence[Experiment], store: Store) -> list[Run]:
    hashes = ContentHashes(store.cache / "hashes.json")
    composed = with_start_checkpoints(experiments, [store])
    return split_by_gpu_type([identified(one, hashes, LOCK) for one in composed])


@pytest.mark.parametrize("name", CASES)
def test_the_keys_of_a_config_stay_what_they_are(
    name: str, ask: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    Path("mine.yml").write_text(BASE.format(commit=COMMIT))
    store = Store(tmp_path / "store")
    Path("dpo.yml").write_text(DPO.format(commit=COMMIT, other=OTHER))
    words = list(CASES[name])
    if any("RUN" in word for word in words):
        source = checkpointed.source(store, 10, config=ask().experiments[0].axolotl)
        words = [*(word.replace("RUN", source.key) for word in words), f"store={store.root}"]
    keys = [[run.key, run.data_key] for run in found_now(ask(*words).experiments, store)]
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    if os.environ.get("AXOSWEEP_RENEW_GOLDEN"):
        GOLDEN.write_text(json.dumps({**golden, name: keys}, indent=1, sort_keys=True) + "\n")
    else:
        assert keys == golden[name]


def test_every_golden_key_is_one_of_a_case_and_no_two_cases_share_a_run() -> None:
    golden = json.loads(GOLDEN.read_text())
    assert set(golden) == set(CASES)
    same = {"the tiny default", "addresses and tracking"}
    runs = [run for name, keys in golden.items() for run, _ in keys if name not in same]
    assert len(set(runs)) == len(runs)
    assert golden["addresses and tracking"] == golden["the tiny default"], "where results go is in no key"
