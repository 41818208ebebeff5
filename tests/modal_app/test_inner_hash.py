"""A dataset is prepared on a CPU and read on a GPU: there, Axolotl must look for it under the name that it got here."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from modal_app.store.layout import Store
from tests.modal_app.steps import CONFIG, ENVIRONMENT, Warm, preprocess_step

pytestmark = pytest.mark.slow

ON_A_GPU: dict[str, Any] = {
    "bf16": "auto",
    "tf32": True,
    "flash_attention": None,
    "attn_implementation": "flash_attention_2",
    "sample_packing": True,
    "gradient_checkpointing": True,
    "optimizer": "adamw_torch_fused",
}
H100 = {"bf16": True, "fp8": True, "tf32": True, "n_gpu": 1, "compute_capability": "sm_90"}


def test_rows_prepared_on_a_cpu_are_found_on_a_gpu(trainer: Path, warm: Warm, store: Store) -> None:
    """bf16=auto and flash attention are enabled there and not here; neither may be part of the name."""
    assert warm.run(preprocess_step("for-a-gpu", **ON_A_GPU)) == 0
    prepared = json.loads(store.manifest("for-a-gpu").read_text())["hashes"]
    config = store.root / "for-a-gpu.yml"
    config.write_text(json.dumps(CONFIG | ON_A_GPU | {"output_dir": "model", "dataset_prepared_path": "prepared"}))
    script = Path(__file__).with_name("claimed_gpu.py")
    said = subprocess.run(
        [trainer, script, store.root, config, json.dumps(H100)], capture_output=True, text=True, check=False,
        env=ENVIRONMENT | {"PYTHONPATH": str(script.parents[2]), "AXOLOTL_DO_NOT_TRACK": "1"},
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    answer = json.loads(said.stdout.splitlines()[-1])
    assert answer["bf16"] is True, "the config is read as on a GPU"
    assert answer["hashes"] == prepared
