"""What would make a run fit, cheapest first: each way is a line of overrides, and has been estimated again.

The rungs are those of the usual advice: a smaller micro batch with more accumulation (the same effective batch),
checkpointing, a chunked loss, a smaller optimizer state, quantization, more GPUs that share, shorter sequences, a
larger card.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from runner.config.gpus import GPUS, GpuKind
from runner.memory.estimate import Estimate, Verdict, estimate
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
"""What of conf/deepspeed/zero3.yaml the estimate reads; tests/runner/test_memory_ladder.py holds the two together."""

LIGER = "axolotl.integrations.liger.LigerPlugin"
UNCONFIRMED = frozenset({"rtx_pro_6000"})
"""Cards whose memory or number per container is not confirmed: never proposed."""
SHORTEST = 512
MOST_WAYS = 3


@dataclass(frozen=True, slots=True)
class Change:
    """A line of overrides, and what it makes of the run."""

    words: str
    axolotl: Config = field(default_factory=dict)
    gpu: str | None = None
    count: int | None = None


@dataclass(frozen=True, slots=True)
class CurrentSettings:
    """The run as it was asked for."""

    config: Config
    facts: ModelFacts
    gpu: GpuKind
    count: int
    longest_row: int | None = None

    def after(self, changes: Sequence[Change]) -> Estimate:
        config, gpu, count = dict(self.config), self.gpu, self.count
        for change in changes:
            config.update(change.axolotl)
            gpu, count = GPUS[change.gpu] if change.gpu else gpu, change.count or count
        return estimate(config, self.facts, gpu, count, self.longest_row)


@dataclass(frozen=True, slots=True)
class WaysToFit:
    lines: tuple[str, ...] = ()
    """Overrides, the cheapest first; none where no rung is enough."""
    verdict: Verdict = Verdict.FITS
    """Of the run with each of them: UNSURE where nothing makes it a clear fit."""


def ways_out(asked: CurrentSettings) -> WaysToFit:
    """Up to three of them, each from another rung."""
    found: list[str] = []
    for wanted in (Verdict.FITS, Verdict.UNSURE):
        for rung in _RUNGS:
            if found and rung is _everything:
                break
            for change in rung(asked):
                line = _least(asked, change, wanted)
                if line and line not in found:
                    found.append(line)
                    break
            if len(found) == MOST_WAYS:
                return WaysToFit(tuple(found), wanted)
        if found:
            return WaysToFit(tuple(found), wanted)
    return WaysToFit()


def _least(asked: CurrentSettings, change: Change | None, wanted: Verdict) -> str:
    """The fewest of the free changes that make this one enough; empty when all of them do not."""
    free = list(_free(asked))
    own = [] if change is None else [change]
    if not (own or free) or asked.after([*own, *free]).verdict is not wanted:
        return ""  # none of them makes it worse, so fewer would not do either
    for size in range(len(free) + 1):
        for chosen in combinations(free, size):
            picked = [*own, *chosen]
            if picked and asked.after(picked).verdict is wanted:
                return " ".join(_gentlest_batch(asked, picked, wanted))
    return ""


def _gentlest_batch(asked: CurrentSettings, changes: Sequence[Change], wanted: Verdict) -> Iterator[str]:
    """The changes' words, with the largest micro batch that will do."""
    batches = list(_batches(asked.config))
    for change in changes:
        if change in batches:
            for larger in batches:
                if asked.after([larger if one is change else one for one in changes]).verdict is wanted:
                    yield larger.words
                    break
        else:
            yield change.words


def _free(asked: CurrentSettings) -> Iterator[Change]:
    """What changes neither the result nor the bill by much: the smallest micro batch, checkpointing, a chunked loss."""
    if batches := list(_batches(asked.config)):
        yield batches[-1]
    if not asked.config.get("gradient_checkpointing"):
        yield Change("gradient_checkpointing=true", {"gradient_checkpointing": True})
    yield from _losses(asked.config)


def _batches(config: Config) -> Iterator[Change]:
    """Smaller micro batches with the same effective batch, the largest first."""
    micro, steps = config.get("micro_batch_size"), config.get("gradient_accumulation_steps") or 1
    if not isinstance(micro, int) or not isinstance(steps, int):
        return
    evaluated = config.get("eval_batch_size")
    for size in range(micro - 1, 0, -1):
        if micro % size == 0:
            total = steps * (micro // size)
            words = f"micro_batch_size={size} gradient_accumulation_steps={total}"
            axolotl = {"micro_batch_size": size, "gradient_accumulation_steps": total}
            if isinstance(evaluated, int) and evaluated > size:
                words, axolotl = f"{words} eval_batch_size={size}", {**axolotl, "eval_batch_size": size}
            yield Change(words, axolotl)


def _losses(config: Config) -> Iterator[Change]:
    plugins = [str(plugin) for plugin in config.get("plugins") or ()]
    fused = ("liger_fused_linear_cross_entropy", "liger_cross_entropy", "chunked_cross_entropy", "cut_cross_entropy")
    if any(config.get(key) for key in fused) or any("cut_cross_entropy" in plugin for plugin in plugins):
        return
    yield Change("chunked_cross_entropy=true", {"chunked_cross_entropy": True})


# The rungs


def _nothing_else(asked: CurrentSettings) -> Iterator[Change | None]:
    yield None


def _optimizers(asked: CurrentSettings) -> Iterator[Change | None]:
    if not asked.config.get("adapter") and "8bit" not in str(asked.config.get("optimizer")):
        name = "adamw_torch_8bit" if asked.config.get("fsdp_config") else "adamw_bnb_8bit"
        yield Change(f"optimizer={name}", {"optimizer": name})


def _quantization(asked: CurrentSettings) -> Iterator[Change | None]:
    if asked.config.get("adapter") in ("lora", "qlora") and not asked.config.get("load_in_4bit"):
        axolotl = {"adapter": "qlora", "load_in_4bit": True, "load_in_8bit": False}
        eight = " load_in_8bit=false" if asked.config.get("load_in_8bit") else ""
        yield Change(f"adapter=qlora load_in_4bit=true{eight}", axolotl)


def _more_gpus(asked: CurrentSettings) -> Iterator[Change | None]:
    if asked.count > 1 and not asked.config.get("fsdp_config"):
        yield Change("deepspeed=zero3", {"deepspeed": ZERO3})
    for count in _counts(asked, asked.gpu):
        if asked.config.get("fsdp_config"):
            yield Change(f"gpu.count={count}", count=count)
        else:
            yield Change(f"gpu.count={count} deepspeed=zero3", {"deepspeed": ZERO3}, count=count)


def _counts(asked: CurrentSettings, kind: GpuKind) -> Iterator[int]:
    return (count for count in (2, 4, 8) if asked.count < count <= kind.most)


def _shorter(asked: CurrentSettings) -> Iterator[Change | None]:
    length = asked.config.get("sequence_len")
    while isinstance(length, int) and length // 2 >= SHORTEST:
        length //= 2
        yield Change(f"sequence_len={length}", {"sequence_len": length})


def _larger_cards(asked: CurrentSettings) -> Iterator[Change | None]:
    larger = [
        kind
        for kind in GPUS.values()
        if kind.usable_gib > asked.gpu.usable_gib and kind.most >= asked.count and kind.name not in UNCONFIRMED
    ]
    for kind in sorted(larger, key=lambda kind: kind.usable_gib):
        words = f"gpu={kind.name}" + (f" gpu.count={asked.count}" if asked.count > 1 else "")
        yield Change(words, gpu=kind.name)


def _everything(asked: CurrentSettings) -> Iterator[Change | None]:
    """More of a larger card, and the base quantized where there is an adapter."""
    shares = {} if asked.config.get("fsdp_config") else {"deepspeed": ZERO3}
    sharing = " deepspeed=zero3" if shares else ""
    quantized = next(_quantization(asked), None)
    for card in _larger_cards(asked):
        assert card is not None
        assert card.gpu is not None
        for count in dict.fromkeys((asked.count, *_counts(asked, GPUS[card.gpu]))):
            if count > 1:
                line = f"gpu={card.gpu} gpu.count={count}{sharing}"
                yield Change(line, shares, card.gpu, count)
                if quantized:
                    yield Change(f"{line} {quantized.words}", {**shares, **quantized.axolotl}, card.gpu, count)


_RUNGS = (_nothing_else, _optimizers, _quantization, _more_gpus, _shorter, _larger_cards, _everything)
