"""Changes that would make a run fit, cheapest first: each is a line of overrides whose effect has been estimated.

The rungs of the ladder follow the usual advice: a smaller micro batch with more accumulation (the same effective
batch), checkpointing, a chunked loss, a smaller optimizer state, quantization, more GPUs that share, shorter sequences,
a larger card.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

from modal_app.store.smaller_batch import smaller_batches
from runner.config.fields import plugins_of
from runner.config.gpus import GPUS, GpuKind
from runner.memory.estimate import Estimate, Evidence, Verdict, estimate, verdict_of
from runner.memory.measured import NOTHING_KNOWN, KnownMemory
from runner.memory.sharding import fsdp_of
from runner.types import ModelFacts

Config = Mapping[str, Any]

ZERO3: Config = {
    "zero_optimization": {
        "stage": 3,
        "contiguous_gradients": True,
        "overlap_comm": True,
        "reduce_bucket_size": "auto",
        "stage3_prefetch_bucket_size": "auto",
        "stage3_param_persistence_threshold": "auto",
    }
}
"""The part of conf/deepspeed/zero3.yaml that the estimate reads; tests/runner/test_memory_ladder.py compares them."""

LIGER = "axolotl.integrations.liger.LigerPlugin"
UNCONFIRMED = frozenset({"rtx_pro_6000"})
"""Cards whose memory or number per container is not confirmed: never proposed."""
SHORTEST = 512
MOST_WAYS = 3


@dataclass(frozen=True, slots=True)
class Change:
    """A line of overrides, and what it changes in the run."""

    words: str
    axolotl: Config = field(default_factory=dict)
    gpu: str | None = None
    count: int | None = None


@dataclass(frozen=True, slots=True)
class CurrentSettings:
    """The run as it was requested."""

    config: Config
    facts: ModelFacts
    gpu: GpuKind
    count: int
    longest_row: int | None = None
    known: KnownMemory = NOTHING_KNOWN
    times: float = 1.0
    """How many times the estimate the run needs at least, as far as earlier runs have shown."""

    def after(self, changes: Sequence[Change]) -> Estimate:
        """The run with these changes: as measured, otherwise as estimated, and corrected like the run without them."""
        config, gpu, count = dict(self.config), self.gpu, self.count
        for change in changes:
            config.update(change.axolotl)
            gpu, count = GPUS[change.gpu] if change.gpu else gpu, change.count or count
        found = estimate(config, self.facts, gpu, count, self.longest_row)
        known = self.known.corrected(found, config, self.facts, self.longest_row)
        if known.measured is not None or found.parts is None or self.times <= 1.0:
            return known
        sharded = count > 1 and bool(config.get("deepspeed") or config.get("fsdp_config"))
        return replace(found, verdict=verdict_of(int(found.parts.total * self.times), gpu, sharded=sharded))


def settings_now(
    config: Config, facts: ModelFacts, gpu: GpuKind, count: int, longest_row: int | None, known: KnownMemory
) -> CurrentSettings:
    """The run as it was requested, with what earlier runs have shown of it."""
    current = CurrentSettings(config, facts, gpu, count, longest_row, known)
    found = current.after(())
    if found.measured is None or found.parts is None:
        return current
    needed = found.usable if found.measured.evidence is Evidence.RAN_OUT else found.needed or 0
    return replace(current, times=max(1.0, needed / found.parts.total))


@dataclass(frozen=True, slots=True)
class WaysToFit:
    lines: tuple[str, ...] = ()
    """Overrides, the cheapest first; empty if no rung is enough."""
    verdict: Verdict = Verdict.FITS
    """Of the run with any of them: UNSURE if nothing makes it a clear fit."""


def ways_out(current: CurrentSettings) -> WaysToFit:
    """Up to three ways, each from another rung."""
    found: list[str] = []
    for wanted in (Verdict.FITS, Verdict.UNSURE):
        for rung in _RUNGS:
            if found and rung is _everything:
                break
            for change in rung(current):
                line = _least(current, change, wanted)
                if line and line not in found:
                    found.append(line)
                    break
            if len(found) == MOST_WAYS:
                return WaysToFit(tuple(found), wanted)
        if found:
            return WaysToFit(tuple(found), wanted)
    return WaysToFit()


def ways_to_load(current: CurrentSettings) -> tuple[str, ...]:
    """For a model of which only the weights are estimated, changes with which these fit: fewer bits, a larger card,
    more cards that share them.
    """
    four_bit: Config = {"adapter": "qlora", "load_in_4bit": True, "load_in_8bit": False}
    if current.facts.experts:
        bits = Change("lora=qlora_moe", {**four_bit, "quantize_moe_experts": True})
    else:
        bits = Change("lora=qlora", four_bit)
    rungs = ([bits] if _takes_four_bits(current.config) else [], _larger_cards(current), _more_gpus(current))
    enough = ([one for one in rung if one and current.after([one]).verdict is not Verdict.WONT_FIT] for rung in rungs)
    return tuple(found[0].words for found in enough if found)


def next_batch(config: Config) -> Change | None:
    """The next smaller micro batch with the same effective batch, which needs less whatever the model."""
    return next(_batches(config), None)


def _least(current: CurrentSettings, change: Change | None, wanted: Verdict) -> str:
    """This change with the fewest free changes that make it enough; empty if all of them are not enough."""
    free = list(_free(current))
    own = [] if change is None else [change]
    if not (own or free) or current.after([*own, *free]).verdict is not wanted:
        return ""  # no free change needs more memory, so fewer would not be enough either
    for size in range(len(free) + 1):
        for chosen in combinations(free, size):
            picked = [*own, *chosen]
            if picked and current.after(picked).verdict is wanted:
                return " ".join(_gentlest_batch(current, picked, wanted))
    return ""


def _gentlest_batch(current: CurrentSettings, changes: Sequence[Change], wanted: Verdict) -> Iterator[str]:
    """The changes' words, with the largest micro batch that is small enough."""
    batches = list(_batches(current.config))
    for change in changes:
        if change in batches:
            for larger in batches:
                if current.after([larger if one is change else one for one in changes]).verdict is wanted:
                    yield larger.words
                    break
        else:
            yield change.words


def _free(current: CurrentSettings) -> Iterator[Change]:
    """Changes that hardly affect the result or the cost: the smallest micro batch, checkpointing, a chunked loss."""
    if batches := list(_batches(current.config)):
        yield batches[-1]
    if not current.config.get("gradient_checkpointing"):
        yield Change("gradient_checkpointing=true", {"gradient_checkpointing": True})
    yield from _losses(current.config)


def _batches(config: Config) -> Iterator[Change]:
    """Smaller micro batches with the same effective batch, the largest first."""
    for axolotl in smaller_batches(config):
        yield Change(" ".join(f"{key}={value}" for key, value in axolotl.items()), axolotl)


def _losses(config: Config) -> Iterator[Change]:
    fused = ("liger_fused_linear_cross_entropy", "liger_cross_entropy", "chunked_cross_entropy", "cut_cross_entropy")
    if any(config.get(key) for key in fused) or any("cut_cross_entropy" in plugin for plugin in plugins_of(config)):
        return
    yield Change("chunked_cross_entropy=true", {"chunked_cross_entropy": True})


# The rungs


def _nothing_else(current: CurrentSettings) -> Iterator[Change | None]:
    yield None


def _optimizers(current: CurrentSettings) -> Iterator[Change | None]:
    if not current.config.get("adapter") and "8bit" not in str(current.config.get("optimizer")):
        name = "adamw_torch_8bit" if current.config.get("fsdp_config") else "adamw_bnb_8bit"
        yield Change(f"optimizer={name}", {"optimizer": name})


def _quantization(current: CurrentSettings) -> Iterator[Change | None]:
    if _takes_four_bits(current.config) and not current.config.get("load_in_4bit"):
        axolotl = {"adapter": "qlora", "load_in_4bit": True, "load_in_8bit": False}
        eight = " load_in_8bit=false" if current.config.get("load_in_8bit") else ""
        yield Change(f"adapter=qlora load_in_4bit=true{eight}", axolotl)


def _takes_four_bits(config: Config) -> bool:
    """Axolotl refuses to load 4 bit on rank 0 alone for DoRA, or next to modules that are trained in full."""
    loads_once = fsdp_of(config).get("cpu_ram_efficient_loading")
    refused = loads_once and (config.get("peft_use_dora") or config.get("lora_modules_to_save"))
    return config.get("adapter") in ("lora", "qlora") and not refused


def _more_gpus(current: CurrentSettings) -> Iterator[Change | None]:
    if current.count > 1 and not current.config.get("fsdp_config"):
        yield Change("deepspeed=zero3", {"deepspeed": ZERO3})
    for count in _counts(current, current.gpu):
        if current.config.get("fsdp_config"):
            yield Change(f"gpu.count={count}", count=count)
        else:
            yield Change(f"gpu.count={count} deepspeed=zero3", {"deepspeed": ZERO3}, count=count)


def _counts(current: CurrentSettings, kind: GpuKind) -> Iterator[int]:
    return (count for count in (2, 4, 8) if current.count < count <= kind.most)


def _shorter(current: CurrentSettings) -> Iterator[Change | None]:
    length = current.config.get("sequence_len")
    while isinstance(length, int) and length // 2 >= SHORTEST:
        length //= 2
        yield Change(f"sequence_len={length}", {"sequence_len": length})


def _larger_cards(current: CurrentSettings) -> Iterator[Change | None]:
    larger = [
        kind
        for kind in GPUS.values()
        if kind.usable_gib > current.gpu.usable_gib and kind.most >= current.count and kind.name not in UNCONFIRMED
    ]
    for kind in sorted(larger, key=lambda kind: kind.usable_gib):
        words = f"gpu={kind.name}" + (f" gpu.count={current.count}" if current.count > 1 else "")
        yield Change(words, gpu=kind.name)


def _everything(current: CurrentSettings) -> Iterator[Change | None]:
    """Several of a larger card, and with an adapter, also a quantized base model."""
    shares = {} if current.config.get("fsdp_config") else {"deepspeed": ZERO3}
    sharing = " deepspeed=zero3" if shares else ""
    quantized = next(_quantization(current), None)
    for card in _larger_cards(current):
        assert card is not None
        assert card.gpu is not None
        for count in dict.fromkeys((current.count, *_counts(current, GPUS[card.gpu]))):
            if count > 1:
                line = f"gpu={card.gpu} gpu.count={count}{sharing}"
                yield Change(line, shares, card.gpu, count)
                if quantized:
                    yield Change(f"{line} {quantized.words}", {**shares, **quantized.axolotl}, card.gpu, count)


_RUNGS = (_nothing_else, _optimizers, _quantization, _more_gpus, _shorter, _larger_cards, _everything)
