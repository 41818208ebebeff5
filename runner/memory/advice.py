"""What would have fitted, for a run that was out of memory on a GPU. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from runner.config.gpus import GPUS, GpuKind
from runner.config.overrides import parts
from runner.memory.estimate import Verdict, estimate
from runner.memory.ladder import (
    UNCONFIRMED,
    Change,
    Config,
    CurrentSettings,
    WaysToFit,
    next_batch,
    settings_now,
    ways_out,
    ways_to_load,
)
from runner.memory.measured import KnownMemory, RunMemory
from runner.memory.sharding import integer
from runner.types import ModelFacts

HOUR_S = 3600


@dataclass(frozen=True, slots=True)
class LargerCards:
    """Larger cards on which the run would have fitted unchanged."""

    override: str
    """`gpu=h100`."""
    name: str
    """`1 x h100`."""
    dollars_s: float | None
    """The cards' price a second; None if it is unknown."""


@dataclass(frozen=True, slots=True)
class MemoryAdvice:
    cards: str
    """Those that the run had: `1 x l4`."""
    dollars_s: float | None
    ways: tuple[str, ...]
    """Overrides, the nearest to the run first."""
    verdict: Verdict
    """Of the run with any of them. UNKNOWN: it needs less, and it is not known whether that is enough."""
    reason: str = ""
    """Why it is unknown."""
    halved: str = ""
    """The next smaller micro batch, if it only might be enough."""
    larger: LargerCards | None = None


def advice_for(
    config: Config,
    facts: ModelFacts | None,
    gpu: str,
    count: int,
    longest_row: int | None,
    rates: Mapping[str, float],
) -> MemoryAdvice:
    """The advice for a run that needs more memory than `count` of these cards have, whatever is estimated. `rates`: US
    dollars a second of one card.
    """
    cards, dollars = f"{count} x {gpu}", _rate(rates, gpu, count)
    kind = GPUS.get(gpu)
    if kind is None:
        reason = "nothing is estimated on a CPU" if gpu == "cpu" else f"the memory of {gpu} is unknown"
        return MemoryAdvice(cards, dollars, _smaller(config), Verdict.UNKNOWN, reason)
    found = estimate(config, facts, kind, count, longest_row)
    if facts is None or found.parts is None:
        return MemoryAdvice(cards, dollars, _smaller(config), Verdict.UNKNOWN, found.reason)
    longest = longest_row or integer(config, "sequence_len", 512)
    failed = RunMemory("", config, gpu, count, longest, succeeded=False, out_of_memory=True)
    current = settings_now(config, facts, kind, count, longest_row, KnownMemory.of([failed]))
    if found.of_weights_alone:
        return MemoryAdvice(cards, dollars, ways_to_load(current), Verdict.UNKNOWN, "only its weights are counted")
    ways = ways_out(current)
    larger = _larger(current, rates)
    lines = tuple(line for line in ways.lines if not _only_names_cards(line))
    return MemoryAdvice(cards, dollars, lines, ways.verdict, halved=_uncertain(current, ways), larger=larger)


def sentences(advice: MemoryAdvice) -> str:
    """For people: what would have fitted, and at which price."""
    ways = " or ".join(f"`{line}`" for line in advice.ways)
    if advice.verdict is Verdict.UNKNOWN:
        why = f" ({advice.reason})" if advice.reason else ""
        if not ways:
            return f"One row at a time was too much already. Fewer tokens in a row or fewer bits need less{why}."
        return f"{ways} needs less memory for the same batch; whether that is enough is not known{why}."
    verb = "would" if advice.verdict is Verdict.FITS else "might"
    said = [f"It might have fitted with `{advice.halved}`."] if advice.halved else []
    said += [f"It {verb} have fitted with {ways}."] if ways else []
    if advice.larger is not None:
        price = _prices(advice.larger.dollars_s, advice.dollars_s, advice.cards)
        said.append(f"Without a change, it would have fitted on {advice.larger.name}{price}.")
    return " ".join(said) or "No smaller batch, fewer bits or larger card that axosweep knows would have made it fit."


def ready_line(advice: MemoryAdvice, overrides: Sequence[str]) -> str:
    """The command with the nearest change, from the run's own overrides; empty if nothing is advised."""
    larger = advice.larger.override if advice.larger else ""
    change = next(iter(advice.ways), larger).split()
    changed = {_key(one) for one in change}
    rest = [one for one in overrides if _key(one) not in changed]
    return shlex.join(["axosweep", *rest, *change]) if change else ""


def _smaller(config: Config) -> tuple[str, ...]:
    change = next_batch(config)
    return () if change is None else (change.words,)


def _uncertain(current: CurrentSettings, ways: WaysToFit) -> str:
    change = next_batch(current.config)
    if ways.verdict is not Verdict.FITS or change is None or current.after([change]).verdict is not Verdict.UNSURE:
        return ""
    return change.words


def _larger(current: CurrentSettings, rates: Mapping[str, float]) -> LargerCards | None:
    """The cheapest, otherwise the smallest."""
    enough = [kind for kind in sorted(GPUS.values(), key=lambda one: one.usable_gib) if _is_enough(kind, current)]
    if not enough:
        return None
    priced = [kind for kind in enough if kind.name in rates]
    kind = min(priced, key=lambda one: rates[one.name]) if priced else enough[0]
    words = f"gpu={kind.name}" + (f" gpu.count={current.count}" if current.count > 1 else "")
    return LargerCards(words, f"{current.count} x {kind.name}", _rate(rates, kind.name, current.count))


def _is_enough(kind: GpuKind, current: CurrentSettings) -> bool:
    if kind.usable_gib <= current.gpu.usable_gib or kind.most < current.count or kind.name in UNCONFIRMED:
        return False
    return current.after([Change("", gpu=kind.name)]).verdict is Verdict.FITS


def _only_names_cards(line: str) -> bool:
    return all(_key(one) in ("gpu", "gpu.count") for one in line.split()) and line.startswith("gpu=")


def _key(override: str) -> str:
    return parts(override).key.removeprefix("axolotl.")


def _rate(rates: Mapping[str, float], gpu: str, count: int) -> float | None:
    return rates[gpu] * count if gpu in rates else None


def _prices(dollars_s: float | None, before: float | None, cards: str) -> str:
    if dollars_s is None:
        return ""
    compared = "" if before is None else f" instead of ${before * HOUR_S:.2f} on {cards}"
    return f", for ${dollars_s * HOUR_S:.2f} an hour{compared}"
