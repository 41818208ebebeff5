"""The names of the modules and parameters of model architectures, from the generated list (`make fields`)."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any


@dataclass(frozen=True)
class Architecture:
    """Names have `#` in the place of a layer's or an expert's number: `model.layers.#.self_attn.q_proj`."""

    model_type: str
    """As in transformers' config.json: `llama`."""
    linear: tuple[str, ...]
    """Modules that LoRA can be put on; lora_target_linear takes all of them but the head."""
    parameters: tuple[str, ...]

    @functools.cached_property
    def modules(self) -> tuple[str, ...]:
        """All modules with parameters, and those around them."""
        found: dict[str, None] = dict.fromkeys(self.linear)
        for name in self.parameters:
            parts = name.split(".")
            found |= dict.fromkeys(".".join(parts[:end]) for end in range(1, len(parts)))
        return tuple(found)


def architecture(name: str) -> Architecture | None:
    """By model type (`llama`) or class (`LlamaForCausalLM`); None for one that transformers does not have."""
    found = _entries().get(name)
    return Architecture(found[0], tuple(found[1]["linear"]), tuple(found[1]["parameters"])) if found else None


def with_numbers(name: str, layers: int, others: int = 8) -> Iterator[str]:
    """The names that `#` stands for, with a model of this many layers. The numbers of experts go up to `others`.

    >>> list(with_numbers("model.layers.#.mlp", 2))
    ['model.layers.0.mlp', 'model.layers.1.mlp']
    """
    before, mark, after = name.partition("#")
    if not mark:
        yield name
        return
    for number in range(layers):
        yield from with_numbers(f"{before}{number}{after}", others, others)


def leaf(name: str) -> str:
    return name.rpartition(".")[2]


@functools.cache
def _entries() -> Mapping[str, tuple[str, Mapping[str, Any]]]:
    """By model type and by class: the model type, and what is listed for it."""
    text = resources.files("runner.config").joinpath("architectures.json").read_text(encoding="utf-8")
    found: dict[str, tuple[str, Mapping[str, Any]]] = {}
    for raw in json.loads(text):
        for model_type, classes in raw["model_types"].items():
            found[model_type] = (model_type, raw)
            for name in classes:
                found.setdefault(name, (model_type, raw))
    return found
