"""Takes steps on the CPU with each optimizer that is named: `python optimizers_on_cpu_script.py FOLDER NAME...`

Run with the trainer's Python. Axolotl's own builder and trainer create the optimizer, for a LoRA adapter whose matrices
are large enough for 8-bit states. Prints a line of JSON for each name: `error` is empty if the weights have changed.
"""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace
from typing import Any

import peft
import torch
from axolotl.core.builders.causal import HFCausalTrainerBuilder
from axolotl.core.trainers.base import AxolotlTrainer
from axolotl.core.training_args import AxolotlTrainingArguments
from axolotl.utils.dict import DictDefault
from transformers import LlamaConfig, LlamaForCausalLM

SHAPE = {"hidden_size": 128, "intermediate_size": 128, "num_attention_heads": 2, "num_hidden_layers": 1}
LORA = peft.LoraConfig(r=64, target_modules=["q_proj", "down_proj"], init_lora_weights=False)

STEPS = 8
"""The first steps of schedule_free_radam change nothing."""


def trained_error(name: str, folder: str) -> str:
    torch.manual_seed(1)
    model: Any = peft.get_peft_model(LlamaForCausalLM(LlamaConfig(vocab_size=64, **SHAPE)), LORA)
    before = [one.detach().clone() for one in model.parameters() if one.requires_grad]
    try:
        optimizer = made(name, model, folder)
        if hasattr(optimizer, "train"):
            optimizer.train()  # as transformers does, for the schedule-free ones
        for _ in range(STEPS):
            rows = torch.randint(0, 64, (2, 16))
            model(input_ids=rows, labels=rows).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    except Exception as error:  # of any library, with any type
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
    after = [one.detach() for one in model.parameters() if one.requires_grad]
    if not all(one.isfinite().all() for one in after):
        return "a weight is not finite"
    return "" if any(not torch.equal(*pair) for pair in zip(before, after, strict=True)) else "no weight has changed"


def made(name: str, model: Any, folder: str) -> Any:
    """The optimizer as Axolotl creates it for a run."""
    settings: dict[str, Any] = {"learning_rate": 1e-2, "weight_decay": 0.01, "dion_learning_rate": 1e-2}
    settings["dion_momentum"] = 0.95
    of_trainer: dict[str, Any] = {}
    config = DictDefault({"optimizer": name, "adapter": "lora"})
    HFCausalTrainerBuilder._configure_optimizer(SimpleNamespace(cfg=config, model=model), settings, of_trainer)
    arguments = AxolotlTrainingArguments(folder, use_cpu=True, report_to=[], **settings)
    arguments.optim_target_modules = ["q_proj", "down_proj"] if "galore" in name or "apollo" in name else None
    trainer = AxolotlTrainer(model=model, args=arguments, **of_trainer)
    trainer.create_optimizer()
    return trainer.optimizer


if __name__ == "__main__":
    torch.compiler.set_stance("force_eager")  # some would compile their step, which takes minutes
    for named in sys.argv[2:]:
        print(json.dumps({"name": named, "error": trained_error(named, sys.argv[1])}), flush=True)
