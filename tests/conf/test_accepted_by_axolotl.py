"""Every shipped choice, and the pairs of them that constrain one another, pass Axolotl's own schema for their GPU.

One trainer process checks all of them, since starting it takes most of the time.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from runner.config.gpus import GPUS
from runner.config.project import SWEEPS
from runner.config.vocabulary import read_vocabulary
from runner.environment import trainer_environment
from runner.types import Experiment

pytestmark = pytest.mark.slow

GROUPS = read_vocabulary().groups
RANKS = [option for option in GROUPS["lora"] if option[1:].isdecimal() and option != "r16"]
OWN_FILES = [option for option in GROUPS["dataset"] if option.startswith("local")]


def _all_of(group: str, leave_out: Sequence[str] = ()) -> str:
    return f"{group}=" + ",".join(option for option in GROUPS[group] if option not in leave_out)


MODELS = _all_of("model")
LINES = [
    # Each model with every kind of adapter, and with every kind of sharding.
    ["-m", MODELS, "lora=none", "deepspeed=zero1", "gpu=h100", "gpu.count=8"],
    ["-m", MODELS, "lora=r16", "deepspeed=zero2", "gpu=h100", "gpu.count=8"],
    ["-m", MODELS, "lora=lora_8bit", "deepspeed=zero3", "gpu=h100", "gpu.count=8"],
    ["-m", MODELS, "lora=qlora", "deepspeed=zero3_offload", "gpu=h100", "gpu.count=8"],
    ["-m", MODELS, "lora=dora", "fsdp=fsdp2", "gpu=h100", "gpu.count=8"],
    ["-m", MODELS, "lora=rslora", "fsdp=fsdp2_offload", "gpu=h100", "gpu.count=8"],
    ["-m", _all_of("gpu"), _all_of("training")],
    # Adapters and sharding constrain one another; a rank constrains nothing.
    ["-m", _all_of("lora"), "model=llama3_1_8b", "gpu=a100_80gb"],
    ["-m", _all_of("alpha"), "lora=r4,rslora"],
    ["-m", _all_of("lora", RANKS), _all_of("deepspeed"), "model=llama3_1_8b", "gpu=h100", "gpu.count=8"],
    ["-m", _all_of("lora", RANKS), _all_of("fsdp", ["none"]), "model=llama3_1_8b", "gpu=h100", "gpu.count=8"],
    ["-m", _all_of("dataset", OWN_FILES)],
    ["-m", f"dataset={','.join(OWN_FILES)}", "data.path=mine.jsonl"],
    ["-m", _all_of("experiment")],
]
"""Together they hold every option of every group that writes into `axolotl`."""


@pytest.fixture(scope="module")
def axolotl() -> Callable[[Sequence[Experiment]], dict[str, Any]]:
    def judge(experiments: Sequence[Experiment]) -> dict[str, Any]:
        requested = [{"axolotl": dict(one.axolotl), "capabilities": _capabilities(one)} for one in experiments]
        done = subprocess.run(
            [trainer_environment.find(), Path(__file__).with_name("verdicts.py")],
            input=json.dumps(requested),
            env={**os.environ, "HF_HUB_OFFLINE": "1", "AXOLOTL_DO_NOT_TRACK": "1", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return answer

    return judge


def _capabilities(experiment: Experiment) -> dict[str, Any]:
    card = GPUS.get(experiment.gpu.type)
    return {
        "bf16": card is not None and card.bf16,
        "fp8": card is not None and card.fp8,
        "tf32": card is not None and card.bf16,  # both came with Ampere
        "n_gpu": experiment.gpu.count,
        "n_node": 1,
        "compute_capability": card.compute_capability if card else None,
    }


def test_axolotl_and_deepspeed_accept_every_shipped_choice(
    ask: Callable[..., Any], axolotl: Callable[..., Any]
) -> None:
    experiments = [experiment for line in LINES for experiment in ask(*line).experiments]
    answer = axolotl(experiments)
    refused = {" ".join(one.overrides): said for one, said in zip(experiments, answer["verdicts"], strict=True) if said}
    assert refused == {}
    assert all(one.model is not None for one in experiments)
    templates = {one.axolotl["chat_template"] for one in experiments if "chat_template" in one.axolotl}
    assert templates <= set(answer["chat_templates"])
    assert {one.axolotl["model_type"] for one in experiments} <= set(answer["models"])
    assert _asked_for(experiments) >= _options()


def _asked_for(experiments: Sequence[Experiment]) -> set[str]:
    return {override for one in experiments for override in one.overrides}


def _options() -> set[str]:
    """The choices to be made about a run's config; the others do not reach Axolotl."""
    elsewhere = (SWEEPS, "executor", "tracking", "prices", "search")
    said = {f"{group}={option}" for group, options in GROUPS.items() for option in options if group not in elsewhere}
    return said - {"fsdp=none"}
