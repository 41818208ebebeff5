"""Count every tensor of one training step of transformers and PEFT, without a GPU and without the memory that it would
take.

    .axosweep/trainer/bin/python tests/runner/memory_counter.py '{"layers": 4, "lora": 16, "checkpointing": true}'

prints the most bytes that existed at once. Fake tensors have shapes and no data, so a model of any size runs. Attention
is a stand-in that saves what flash attention saves. Runs in the trainer's environment; the tests call it.
"""

from __future__ import annotations

import json
import sys
import warnings
import weakref
from collections.abc import Mapping
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class Counter(TorchDispatchMode):  # type: ignore[misc]
    """Bytes of all storages that an operation created and that are still referenced."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.seen: set[int] = set()

    def add(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self.seen:
            self.seen.add(key)
            self.now += size
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self.seen.discard(key)
        self.now -= size

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        made = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, torch.Tensor):
                self.add(leaf)
        return made


class Flash(torch.autograd.Function):  # type: ignore[misc]
    """Saves its inputs, its output and a row of sums, as flash attention does."""

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(query)
        sums = torch.empty(query.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, out, sums)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, ...]:
        query, key, value, _, _ = ctx.saved_tensors
        torch.empty(query.shape, dtype=torch.float32)  # its accumulator
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def attend(
    module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: None, **rest: Any
) -> tuple[torch.Tensor, None]:
    return Flash.apply(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)), None


def build(case: Mapping[str, Any]) -> torch.nn.Module:
    """The model on the meta device: shapes only."""
    ALL_ATTENTION_FUNCTIONS.register("counted", attend)
    ALL_MASK_ATTENTION_FUNCTIONS.register("counted", lambda *args, **rest: None)
    shape = {
        "hidden_size": case.get("hidden", 4096),
        "intermediate_size": case.get("ffn", 14336),
        "num_attention_heads": case.get("heads", 32),
        "num_key_value_heads": case.get("kv_heads", 8),
        "vocab_size": case.get("vocabulary", 128256),
        "tie_word_embeddings": case.get("tied", False),
        "num_hidden_layers": case["layers"],
    }
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**shape, use_cache=False, attn_implementation="counted"))
        torch.set_default_dtype(torch.float32)
        if case.get("lora"):
            model.enable_input_require_grads()
        if case.get("checkpointing"):
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        if case.get("lora"):
            dropout, targets = case.get("dropout", 0.0), case.get("targets", TARGETS)
            model = get_peft_model(
                model, LoraConfig(r=case["lora"], lora_dropout=dropout, target_modules=targets, task_type="CAUSAL_LM")
            )
    return model.train()


def put_in_memory(model: torch.nn.Module) -> list[torch.Tensor]:
    """Fake tensors in place of meta ones; shared tensors stay shared."""
    made: dict[int, torch.Tensor] = {}
    for module in model.modules():
        for kind in (module._parameters, module._buffers):
            for name, old in kind.items():
                if old is not None and id(old) not in made:
                    new = torch.empty(old.shape, dtype=old.dtype)
                    made[id(old)] = torch.nn.Parameter(new, old.requires_grad) if kind is module._parameters else new
                if old is not None:
                    kind[name] = made[id(old)]
    return list(made.values())


def most_bytes(case: Mapping[str, Any]) -> int:
    model = build(case)
    with FakeTensorMode(allow_non_fake_inputs=True):
        counter = Counter()
        for tensor in put_in_memory(model):
            counter.add(tensor)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        with counter:
            states = [torch.zeros_like(parameter) for parameter in trained for _ in range(2)]
            tokens = torch.zeros(case["rows"], case["length"], dtype=torch.long)
            with torch.autocast("cpu", torch.bfloat16):
                loss = model(input_ids=tokens, labels=tokens).loss
            loss.backward()
        del states
    return counter.most


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print(json.dumps([most_bytes(case) for case in json.loads(sys.argv[1])]))
