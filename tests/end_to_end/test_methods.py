"""Reward models and preferences: each method trains the tiny model from one command line, in two ranks."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from modal_app.store.layout import Store
from modal_app.store.step import StepKind
from modal_app.store.trained_weights import TrainedWeights, weights_left_by
from runner.config.shipped import shipped_root
from tests.end_to_end.axosweep import Axosweep

pytestmark = pytest.mark.slow

TINY = shipped_root() / "tiny"
COMMON: Mapping[str, Any] = {
    "base_model": str(TINY / "model"),
    "chat_template": "tokenizer_default",
    "sequence_len": 128,
    "val_set_size": 0.2,
    "micro_batch_size": 2,
    "gradient_accumulation_steps": 1,
    "max_steps": 2,
    "eval_steps": 1,
    "learning_rate": 1e-3,
    "logging_steps": 1,
    "optimizer": "adamw_torch",
    "seed": 1,
    "remove_unused_columns": False,
}
LORA: Mapping[str, Any] = {"adapter": "lora", "lora_r": 8, "lora_alpha": 16, "lora_target_linear": True}
CHOSEN = {"field_prompt": "prompt", "field_chosen": "good", "field_rejected": "bad"}
LABELLED = {"field_prompt": "prompt", "field_completion": "completion", "field_label": "label"}
METHODS: Mapping[str, tuple[str, Any, Mapping[str, Any]]] = {
    "dpo": ("pairs", CHOSEN, {"rl": "dpo", **LORA}),
    "ipo": ("pairs", CHOSEN, {"rl": "ipo", **LORA}),
    "simpo": ("pairs", CHOSEN, {"rl": "simpo", "rl_beta": 2.0, "simpo_gamma": 1.0, "warmup_steps": 1, **LORA}),
    "orpo": ("chats", "chat_template.argilla", {"rl": "orpo", **LORA}),
    "kto": ("labelled", LABELLED, {"rl": "kto", **LORA}),
    "reward": (
        "rated",
        "bradley_terry.chat_template",
        {"reward_model": True, "model_type": "AutoModelForSequenceClassification", "num_labels": 1},
    ),
    "process": (
        "steps",
        "stepwise_supervised",
        {"process_reward_model": True, "model_type": "AutoModelForTokenClassification", "num_labels": 2},
    ),
}
"""By name: the rows, their type, and keys of its own."""


def write_rows(folder: Path) -> None:
    """A good and a bad answer to each question, in each format."""
    lines = (TINY / "data" / "train.jsonl").read_text(encoding="utf-8").splitlines()[:25]
    answered = [[one["content"] for one in json.loads(line)["messages"]] for line in lines]
    triples = [(*one, other[1]) for one, other in itertools.pairwise(answered)]
    rows: dict[str, list[dict[str, Any]]] = {
        "pairs": [{"prompt": asked, "good": good, "bad": bad} for asked, good, bad in triples],
        "chats": [{"chosen": chat(asked, good), "rejected": chat(asked, bad)} for asked, good, bad in triples],
        "labelled": [
            {"prompt": asked, "completion": said, "label": label}
            for asked, good, bad in triples
            for said, label in ((good, True), (bad, False))
        ],
        "rated": [{"system": "", "input": asked, "chosen": good, "rejected": bad} for asked, good, bad in triples],
        "steps": [{"prompt": asked, "completions": both, "labels": [True, False]} for asked, *both in triples],
    }
    for name, made in rows.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))


def chat(asked: str, said: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]


def test_each_method_trains_and_leaves_what_it_says(axosweep: Axosweep) -> None:
    write_rows(axosweep.folder)
    for name, (rows, kind, keys) in METHODS.items():
        datasets = [{"path": f"{rows}.jsonl", "ds_type": "json", "split": "train", "type": kind}]
        (axosweep.folder / f"{name}.yml").write_text(yaml.safe_dump({**COMMON, **keys, "datasets": datasets}))
    bases = ",".join(f"{name}.yml" for name in METHODS)
    runs = axosweep.json("-m", f"base={bases}", "gpu=cpu", "gpu.count=2", "tracking=disabled")["runs"]
    assert {one["status"] for one in runs} == {"succeeded"}, [one["message"] for one in runs]
    left = sorted(left_by(axosweep.store, one["key"]) for one in runs)
    assert left == [TrainedWeights.ADAPTER] * 5 + [TrainedWeights.MODEL] * 2


def left_by(store: Store, key: str) -> TrainedWeights:
    """What a run has left. It has evaluated before its first step, in between, and at its end."""
    folder = store.folder(StepKind.TRAIN, key)
    lines = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    assert [line["step"] for line in lines if "eval_loss" in line] == [0, 1, 2]
    assert all(isinstance(line["loss"], float) for line in lines if "loss" in line)
    told = json.loads(folder.done.read_text())["facts"]
    assert told["no_row_losses"] == "the loss compares or scores answers, so a row has no likelihood of its own"
    assert not folder.losses.exists()
    kind = weights_left_by(yaml.safe_load(folder.config.read_text()))
    assert any(list(folder.model.glob(pattern)) for pattern in kind.patterns)
    return kind
