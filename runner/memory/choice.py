"""gpu=auto: the cheapest kind and number of cards on which a run fits, with the reason. Pure.

It compares the price of the run, not of an hour: a card that costs twice as much and is three times as fast is cheaper,
unless the run is so short that most of its time is spent on starting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from runner.config.gpus import GPUS, GpuKind
from runner.errors import SweepError
from runner.memory.estimate import Estimate, Verdict, estimate, not_estimated
from runner.memory.ladder import UNCONFIRMED, CurrentSettings, ways_out
from runner.memory.unestimated import cards_to_name, ways_to_try
from runner.memory.words import in_words, where
from runner.types import ModelFacts

Config = Mapping[str, Any]

AUTO = "auto"

PEAK_TFLOPS = {
    "t4": 65,
    "l4": 121,
    "a10": 70,
    "l40s": 362,
    "a100_40gb": 312,
    "a100_80gb": 312,
    "rtx_pro_6000": 503,
    "h100": 989,
    "h200": 989,
    "b200": 2250,
}
"""Dense 16-bit tensor TFLOP/s of one card, from NVIDIA's data sheets (half of their figures with sparsity; Modal's A10
is an A10G)."""
SHARE_OF_PEAK = 0.4
"""The share that training reaches: 0.44 to 0.59 in torchtune's README, less with Hugging Face's trainer."""
STARTUP_S = 120.0
"""Before the first step: the container, the imports, loading the model. A guess; it matters only for short runs."""
TOKENS_PER_EPOCH = 1_000_000
"""Assumed for a run of unknown length, even if its dataset is prepared: the choice must not depend on the cache."""


@dataclass(frozen=True, slots=True)
class Choice:
    gpu: str
    count: int
    reason: str
    estimate: Estimate


@dataclass(frozen=True, slots=True)
class _Candidate:
    estimate: Estimate
    dollars: float

    @property
    def order(self) -> tuple[bool, float, int]:
        """A clear fit first, then the price, then fewer cards."""
        return self.estimate.verdict is not Verdict.FITS, self.dollars, self.estimate.count


def choose(
    config: Config,
    facts: ModelFacts | None,
    rates: Mapping[str, float],
    *,
    count: int | None = None,
    able: Callable[[GpuKind], bool] = lambda kind: True,
) -> Choice:
    """The cheapest cards. `rates`: US dollars a second of one card, by its name in conf/gpu. `count`: the number of
    cards, if it is fixed. `able`: whether a card can run this config at all.

    Raises SweepError when the memory cannot be estimated, or no card has enough of it.
    """
    kinds = [kind for kind in GPUS.values() if kind.name in rates and kind.name not in UNCONFIRMED and able(kind)]
    estimates = [estimate(config, facts, kind, number) for kind in kinds for number in _counts(config, kind, count)]
    unknown = next((one for one in estimates if one.verdict is Verdict.UNKNOWN), None)
    if unknown is not None:
        raise SweepError(_unknown(config, facts, [one for one in estimates if one.verdict is Verdict.UNKNOWN], rates))
    fitting = [one for one in estimates if one.verdict in (Verdict.FITS, Verdict.UNSURE)]
    if not fitting or facts is None:
        raise SweepError(_nothing_fits(config, facts, estimates, rates))
    candidates = sorted((_priced(one, config, facts, rates) for one in fitting), key=lambda one: one.order)
    best = candidates[0].estimate
    return Choice(best.gpu.name, best.count, _reason(candidates, config), best)


def _counts(config: Config, kind: GpuKind, fixed: int | None) -> Iterable[int]:
    """The numbers of cards to try. Several cards only help if they share something."""
    if fixed is not None:
        return (fixed,) if fixed <= kind.most else ()
    shares = bool(config.get("deepspeed") or config.get("fsdp_config"))
    return (count for count in (2, 4, 8) if count <= kind.most) if shares else (1,)


def _priced(one: Estimate, config: Config, facts: ModelFacts, rates: Mapping[str, float]) -> _Candidate:
    name = one.gpu.name
    flops = _flops(config, facts, one.count) / one.count
    seconds = STARTUP_S + flops / (PEAK_TFLOPS[name] * 1e12 * SHARE_OF_PEAK)
    return _Candidate(one, rates[name] * one.count * seconds)


def _flops(config: Config, facts: ModelFacts, cards: int) -> float:
    """Of all cards together. Per weight and token: 2 for the forward pass, 2 for each kind of gradient, and 2 if the
    forward pass is recomputed."""
    passes = (4 if config.get("adapter") else 6) + (2 if config.get("gradient_checkpointing") else 0)
    return float(passes) * (facts.parameters - facts.vocabulary * facts.hidden) * _tokens(config, cards)


def _tokens(config: Config, cards: int) -> float:
    """Of the run: each step has a batch for each card, but the rows are the same however many cards there are."""
    steps, epochs = config.get("max_steps"), config.get("num_epochs") or 1
    if isinstance(steps, int) and steps > 0:
        batch = (config.get("micro_batch_size") or 1) * (config.get("gradient_accumulation_steps") or 1)
        return float(steps * batch * cards * (config.get("sequence_len") or 512))
    return float(TOKENS_PER_EPOCH * epochs)


def _reason(candidates: list[_Candidate], config: Config) -> str:
    best = candidates[0]
    words = f"gpu=auto: {where(best.estimate)} {best.estimate.verdict}"
    if best.estimate.verdict is not Verdict.FITS:
        words += ", and no card is a clear fit"
    others = [one for one in candidates[1:] if one.estimate.gpu is not best.estimate.gpu]
    length = "the steps" if config.get("max_steps") else f"{TOKENS_PER_EPOCH:,} tokens an epoch"
    words += f"; compared by a rough price for {length}, without checkpoints: ${best.dollars:.2f}"
    if others and others[0].estimate.verdict is best.estimate.verdict:
        words += f", next {where(others[0].estimate)} ${others[0].dollars:.2f}"
    return words


def _unknown(config: Config, facts: ModelFacts | None, estimates: list[Estimate], rates: Mapping[str, float]) -> str:
    """Why the memory is unknown, and which cards to name. `estimates`: those that are unknown."""
    if facts is None:
        return f"gpu=auto: {estimates[0].reason}, so no GPU can be chosen. Name one: gpu=h100 gpu.count=1."
    kind = not_estimated(facts)
    why = f"the memory of {kind} is not estimated" if kind else estimates[0].reason
    named = cards_to_name(config, facts, [(one.gpu, one.count) for one in estimates], rates)
    return f"gpu=auto: {why}, so no GPU can be chosen. {named}"


def _nothing_fits(
    config: Config, facts: ModelFacts | None, estimates: list[Estimate], rates: Mapping[str, float]
) -> str:
    if not estimates or facts is None:
        return "gpu=auto: no card with a price can run this config. Name the GPU: gpu=h100 gpu.count=1."
    nearest = min(estimates, key=lambda one: one.parts.total / one.usable if one.parts else 0)
    ways = ways_out(CurrentSettings(config, facts, nearest.gpu, nearest.count))
    out = f" It would fit with: {' or '.join(ways.lines)}." if ways.lines else ""
    if not out and nearest.of_weights_alone:
        out = ways_to_try(config, facts, list(dict.fromkeys(one.gpu for one in estimates)), rates)
    return (
        f"gpu=auto: no card has enough memory. The one that comes closest, {where(nearest)}: {in_words(nearest)}.{out}"
    )
