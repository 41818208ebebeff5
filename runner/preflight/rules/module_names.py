"""How PEFT and Axolotl compare the names in a config with those of a model's modules and parameters."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from runner.config.architectures import Architecture, leaf, with_numbers

FUSED = frozenset("gate_proj up_proj down_proj w1 w2 w3 gate experts router".split())
"""Parts of experts. transformers stores them as one parameter, which PEFT finds by these names."""
HEADS = frozenset("lm_head score classifier qa_outputs head".split())
"""Modules that depend on what a model is trained for."""
WRAPPERS = ("_checkpoint_wrapped_module.", "_orig_mod.")
"""Parts of names in a model that is offloaded, checkpointed or compiled."""
MANY = 200
"""Layers of a model whose number of layers is unknown."""


def names_a_module(target: str, found: Architecture) -> bool:
    if leaf(target) in HEADS or (_has_experts(found) and leaf(target) in FUSED):
        return True
    return any(ends_in(name, target) for name in found.modules)


def linear_inside(target: str, found: Architecture) -> list[str]:
    """The matrices of a module that is made of several; empty if it is none."""
    around = [name for name in found.modules if name not in found.linear and ends_in(name, target)]
    inside = {leaf(one) for name in around for one in found.linear if one.startswith(f"{name}.")} - {"#"}
    return sorted(inside) if len(inside) > 1 else []


def ends_in(name: str, target: str) -> bool:
    """As PEFT compares names with a list; `#` is any number."""
    for wrapper in WRAPPERS:
        target = target.replace(wrapper, "")
    if "#" in name and re.search(r"\d", target):
        pattern = re.escape(name).replace(r"\#", r"\d+").replace("#", r"\d+")
        return any(re.fullmatch(tail, target) for tail in _tails(pattern))
    return name == target or name.endswith(f".{target}")


def _tails(pattern: str) -> Iterator[str]:
    """The pattern of a dotted name, and those of its ends."""
    parts = pattern.split(r"\.")
    return (r"\.".join(parts[start:]) for start in range(len(parts)))


def matches_any(pattern: str, found: Architecture, layers: int | None) -> bool:
    """As PEFT matches a `target_modules` that is text. `layers`: of the model, if that is known."""
    if pattern.replace("_", "-").lower() == "all-linear" or any(one.rstrip(".") in pattern for one in WRAPPERS):
        return True
    try:
        compiled = re.compile(pattern)
    except re.error:
        return True  # PEFT says what is wrong with it
    names = [*found.modules, *found.parameters]
    if _has_experts(found):
        names += [
            f"{name.rpartition('.')[0]}.{part}" for name in found.parameters if "experts" in name for part in FUSED
        ]
    tried = layers_to_try([pattern], layers)
    return any(compiled.fullmatch(one) for name in names for one in with_numbers(name, tried))


def layers_to_try(patterns: Sequence[str], layers: int | None) -> int:
    """One, unless a pattern names numbers."""
    if not any(re.search(r"\d", one.replace(r"\d", "")) for one in patterns):
        return 1
    return MANY if layers is None else layers


def _has_experts(found: Architecture) -> bool:
    return any("experts" in name or ".moe" in name for name in found.parameters)


def leaves(found: Architecture) -> list[str]:
    return sorted({leaf(name) for name in found.linear} - HEADS - {"#"})


def trained_names(found: Architecture, layers: int, *, adapted: bool) -> Iterator[str]:
    """The names of all parameters, as they are when Axolotl freezes them."""
    before = "base_model.model." if adapted else ""
    for name in found.parameters:
        for one in with_numbers(name, layers):
            yield f"{before}{one}"
            if adapted:
                stem = f"{before}{one.removesuffix('.weight')}"
                yield from (
                    f"{stem}.{end}" for end in ("base_layer.weight", "lora_A.default.weight", "lora_B.default.weight")
                )


def as_axolotl_compiles(pattern: str) -> re.Pattern[str]:
    """As axolotl.utils.freeze.LayerNamePattern does: without a range at the end, and with dots that are dots."""
    base = re.sub(r"^(.+)\[([0-9]*)(?::([0-9]*))?\]$", r"\1", pattern)
    return re.compile(re.sub(r"\.(?!\+)", "\\.", base))


def example(found: Architecture) -> str:
    layer = next((name for name in found.parameters if "#" in name), found.parameters[0])
    return f"[^{layer.partition('#')[0]}3[01]]" if "#" in layer else f"[^{layer}]"
