"""The factors per token against transformers and PEFT themselves, every tensor of a step counted."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runner import trainer_environment
from runner.memory import CONTEXT, peak
from runner.memory_stack import Adapter, Batch, Stack
from tests.runner.memory_points import GIB, LLAMA_8B
from tests.runner.memory_points import model as facts_from_shape

LAYERS = 6
CASES: list[dict[str, Any]] = [
    {"rows": rows, "length": 2048, "layers": LAYERS, "checkpointing": checkpointing, **method}
    for rows in (1, 6)
    for checkpointing in (False, True)
    for method in ({}, {"lora": 16}, {"lora": 16, "dropout": 0.05})
]


def stack_of(case: dict[str, Any]) -> Stack:
    adapter = Adapter(rank=case["lora"], dropout="dropout" in case) if "lora" in case else None
    return Stack(Batch(case["rows"], case["length"]), adapter=adapter, checkpointing=case["checkpointing"])


@pytest.mark.slow
def test_the_estimate_is_what_transformers_holds_at_its_peak_or_a_little_more() -> None:
    script = Path(__file__).with_name("memory_counter.py")
    words = [str(trainer_environment.find()), str(script), json.dumps(CASES)]
    told = subprocess.run(words, capture_output=True, text=True, check=True, timeout=300)
    facts = replace(facts_from_shape(4096, LAYERS, 32, 8, 128, 14336, 128256), base_model=LLAMA_8B.base_model)
    for case, counted in zip(CASES, json.loads(told.stdout.splitlines()[-1]), strict=True):
        parts, _, _ = peak(stack_of(case), facts)
        estimated = parts.total - CONTEXT
        assert 0.97 <= estimated / counted <= 1.08, f"{case}: {estimated / GIB:.1f} of {counted / GIB:.1f} GiB"
