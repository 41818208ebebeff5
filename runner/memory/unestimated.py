"""gpu=auto for models whose memory is not estimated: why nothing is chosen, and what to name instead. Pure.

Their weights are known. A proposal leaves room for the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from runner.config.gpus import GpuKind
from runner.memory.estimate import loaded_weights
from runner.memory.ladder import ZERO3
from runner.memory.sharding import sharers_of_weights
from runner.memory.weights import GIB
from runner.memory.words import gib
from runner.types import ModelFacts

Config = Mapping[str, Any]
Cards = tuple[GpuKind, int]

ROOM, ROOM_FULL = 2, 5
"""A proposed card has so many times the bytes of the weights: next to an adapter, and for a full fine-tune, which also
has gradients (as many bytes) and two states of the optimizer."""
SHARED_BY = (2, 4, 8)
FSDP2: Config = {"reshard_after_forward": True}


def cards_to_name(config: Config, facts: ModelFacts, cards: Iterable[Cards], rates: Mapping[str, float]) -> str:
    """What the weights take, and the cheapest of these cards that have room for them."""
    known = list(cards)
    weights = loaded_weights(config, facts)
    roomy = [one for one in known if _has_room(config, weights, one)]
    kind, count = min(roomy or known, key=lambda one: rates[one[0].name] * one[1] if roomy else -one[0].usable_gib)
    more = "" if config.get("adapter") else " (a full fine-tune needs several times that)"
    shared = " each" if count > 1 else ""
    return (
        f"Name one: its weights alone take {gib(weights)} GiB{more}, and gpu={kind.name} gpu.count={count} has "
        f"{gib(kind.usable_gib * GIB)}{shared}."
    )


def ways_to_try(config: Config, facts: ModelFacts, kinds: Iterable[GpuKind], rates: Mapping[str, float]) -> str:
    """Where not even the weights fit: 4 bit, and several cards that share them; empty if neither has room."""
    known = list(kinds)
    ways = []
    if config.get("adapter") and not config.get("load_in_4bit"):
        four: Config = {**config, "load_in_4bit": True, "quantize_moe_experts": True}
        lora = "lora=qlora_moe" if facts.experts else "lora=qlora"
        ways.append(_cheapest(four, facts, [(kind, 1) for kind in known], rates, lora))
    several = [(kind, count) for kind in known for count in SHARED_BY if count <= kind.most]
    if sharers_of_weights(config, 2) > 1:
        ways.append(_cheapest(config, facts, several, rates, ""))
    elif config.get("deepspeed"):
        ways.append(_cheapest({**config, "deepspeed": ZERO3}, facts, several, rates, "deepspeed=zero3"))
    else:
        ways.append(_cheapest({**config, "fsdp_config": FSDP2}, facts, several, rates, "fsdp=fsdp2"))
    found = " or ".join(way for way in ways if way)
    return f" Enough for its weights, and probably for the rest, which is not estimated: {found}." if found else ""


def _cheapest(config: Config, facts: ModelFacts, cards: Iterable[Cards], rates: Mapping[str, float], words: str) -> str:
    weights = loaded_weights(config, facts)
    roomy = [one for one in cards if _has_room(config, weights, one)]
    if not roomy:
        return ""
    kind, count = min(roomy, key=lambda one: rates[one[0].name] * one[1])
    return f"{words} gpu={kind.name} gpu.count={count}".strip()


def _has_room(config: Config, weights: float, cards: Cards) -> bool:
    kind, count = cards
    return (
        weights / sharers_of_weights(config, count) * (ROOM if config.get("adapter") else ROOM_FULL)
        <= kind.usable_gib * GIB
    )
