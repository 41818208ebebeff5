"""The factors per token, compared with counts of every tensor of a step in transformers and PEFT."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from runner.environment import trainer_environment
from runner.memory.estimate import CONTEXT, peak
from runner.memory.stack import LINEAR, Adapter, Batch, Stack
from tests.runner.memory_points import model as facts_from_shape

SHALLOW, DEEP = 2, 4
ATTENTION = {"lora": 16, "dropout": 0.05, "targets": ["q_proj", "k_proj", "v_proj", "o_proj"]}
MLP = {"lora": 16, "targets": ["gate_proj", "up_proj", "down_proj"]}
CASES: list[dict[str, Any]] = [
    {"rows": 4, "length": 2048, "layers": layers, "vocabulary": vocabulary, "checkpointing": checkpointing, **method}
    for checkpointing, vocabulary in ((False, 128256), (True, 1024))  # with few words, a layer at work is the peak
    for method in ({}, {"lora": 16}, {"lora": 16, "dropout": 0.05}, ATTENTION, MLP)
    for layers in (SHALLOW, DEEP)
]


def stack_of(case: dict[str, Any]) -> Stack:
    adapter = None
    if "lora" in case:
        adapter = Adapter(case["lora"], tuple(case.get("targets", LINEAR)), dropout="dropout" in case)
    return Stack(Batch(case["rows"], case["length"]), adapter=adapter, checkpointing=case["checkpointing"])


@pytest.mark.slow
def test_the_estimate_is_what_transformers_holds_at_its_peak_or_a_little_more() -> None:
    script = Path(__file__).with_name("memory_counter.py")
    words = [str(trainer_environment.find()), str(script), json.dumps(CASES)]
    printed = subprocess.run(words, capture_output=True, text=True, check=True, timeout=300)
    counted = json.loads(printed.stdout.splitlines()[-1])
    estimated = [estimate_of(case) for case in CASES]
    for number in range(0, len(CASES), 2):
        whole = estimated[number + 1] / counted[number + 1]
        more_layers = (estimated[number + 1] - estimated[number]) / (counted[number + 1] - counted[number])
        assert 0.98 <= whole <= 1.07, CASES[number]
        assert 0.999 <= more_layers <= 1.05, CASES[number]


def estimate_of(case: dict[str, Any]) -> float:
    """The bytes as torch's allocator would round them."""
    facts = facts_from_shape(4096, case["layers"], 32, 8, 128, 14336, case["vocabulary"])
    return peak(stack_of(case), facts)[0].total - CONTEXT
