"""Write the names of the modules and parameters of each architecture that the installed transformers has, as JSON.

    .axosweep/trainer/bin/python modal_app/trainer/list_modules.py runner/config/architectures.json

The launcher's environment has no transformers; `runner.config.architectures` reads this file instead. Run it
(`make fields`) whenever the trainer's lock changes. Every model is built without memory (on torch's meta device), with
as few layers as its config allows.
"""

from __future__ import annotations

import json
import re
import signal
import sys
import types
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

SECONDS = 60
"""A model that takes longer to build is left out."""
NUMBER = re.compile(r"(?<=\.)\d+(?=\.|$)")
LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
FEW = 12
"""Layers of a reduced model: enough for one of each kind."""
SWITCHES: tuple[dict[str, Any], ...] = (
    {"q_lora_rank": None},
    {"q_lora_rank": 64},
    {"attention_bias": True},
    {"use_qk_norm": True},
    {"first_k_dense_replace": 0},
    {"first_k_dense_replace": 1},
    {"interleave_moe_layer_step": 2},
    {"enable_moe_block": True, "num_experts": 8, "top_k_experts": 2, "moe_intermediate_size": 64},
)
"""Keys of configs on which the names of modules depend, with the values that are tried besides the default."""
MORE_LAYERS = {"granitemoehybrid": "attention"}
"""Kinds of layers (`layer_types`) that models of an architecture have, and its default config has not."""


def main(target: Path, only: Collection[str] = ()) -> None:
    """Architectures with the same names share an entry. One entry a line, so that a newer version is readable."""
    known = _architectures()
    found = {name: _names_in_time(name, models) for name, models in known.items() if not only or name in only}
    groups: dict[str, list[str]] = {}
    for name, names in found.items():
        if names is not None:
            groups.setdefault(json.dumps(names, sort_keys=True), []).append(name)
    entries = [
        json.dumps({"model_types": {one: known[one] for one in sorted(having)}})[:-1] + ", " + names[1:]
        for names, having in sorted(groups.items(), key=lambda one: min(one[1]))
    ]
    target.write_text("[\n" + ",\n".join(entries) + "\n]\n", encoding="utf-8")


def _architectures() -> dict[str, list[str]]:
    """Model type -> the classes that Axolotl trains: a causal language model, one that also reads images, or both.
    Without those whose text part may be of any architecture."""
    from transformers import CONFIG_MAPPING, AutoConfig
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    )

    found: dict[str, list[str]] = {}
    for mapping in (MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES):
        for name, model in sorted(mapping.items()):
            found.setdefault(name, []).append(model if isinstance(model, str) else model[0])
    any_text = {name for name in found if (CONFIG_MAPPING[name].sub_configs or {}).get("text_config") is AutoConfig}
    return {name: list(dict.fromkeys(models)) for name, models in found.items() if name not in any_text}


def _names_in_time(name: str, models: Iterable[str]) -> dict[str, list[str]] | None:
    def stop(_: int, __: types.FrameType | None) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        return _names(name, models)
    finally:
        signal.alarm(0)


def _names(name: str, models: Iterable[str]) -> dict[str, list[str]] | None:
    """`linear`: modules that lora_target_linear takes. `parameters`: all of them. `#` stands for the number of a layer
    or of an expert. What only some configs of an architecture have is listed, too."""
    linear: set[str] = set()
    parameters: set[str] = set()
    for model in models:
        for change in ({}, *_changes(name)):
            try:
                built = _built(name, model, change)
            except Exception as error:  # building another library's class may raise anything
                if change:
                    continue
                print(f"{name} is left out: {model}, {type(error).__name__}: {error}", file=sys.stderr)
                return None
            linear |= {NUMBER.sub("#", path) for path, module in built.named_modules() if _is_linear(module)}
            parameters |= {NUMBER.sub("#", path) for path, _ in built.named_parameters(remove_duplicate=False)}
    return {"linear": sorted(linear), "parameters": sorted(parameters)}


def _changes(name: str) -> Iterator[dict[str, Any]]:
    from transformers import CONFIG_MAPPING

    yield from SWITCHES
    if name in MORE_LAYERS:
        yield {"layer_types": [MORE_LAYERS[name]] * CONFIG_MAPPING[name]().num_hidden_layers}


def _built(name: str, model: str, change: dict[str, Any]) -> Any:
    import torch
    import transformers

    config = transformers.CONFIG_MAPPING[name]()
    for key, value in change.items():
        part = config if hasattr(config, key) else config.get_text_config()
        if not hasattr(part, key) or getattr(part, key) == value:
            raise LookupError(key)
        setattr(part, key, value)
    kind = getattr(transformers, model)
    if kind.config_class is not None and not isinstance(config, kind.config_class):
        config = config.get_text_config()  # as AutoModelForCausalLM does for a model that also reads images
    with torch.device("meta"):
        return kind._from_config(_reduced(config))


def _is_linear(module: Any) -> bool:
    """As axolotl.loaders.adapter.find_all_linear_names and PEFT decide."""
    import torch

    name = type(module).__name__
    return isinstance(module, torch.nn.Linear) or name == "Conv1D" or ("Linear" in name and "Rotary" not in name)


def _reduced(config: Any) -> Any:
    """The config with fewer layers, if nothing in it counts them one by one."""
    for part in _parts(config):
        counted = [value for value in part.to_dict().values() if isinstance(value, list | tuple)]
        for key in LAYERS:
            layers = getattr(part, key, None)
            if isinstance(layers, int) and layers > FEW and not any(len(value) == layers for value in counted):
                setattr(part, key, FEW)
    return config


def _parts(config: Any) -> Iterator[Any]:
    yield config
    for key in getattr(config, "sub_configs", None) or {}:
        if (part := getattr(config, key, None)) is not None:
            yield from _parts(part)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
