"""A verdict in sentences: what it says, and what that depends on. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runner.compare.seeds_elsewhere import SeedsElsewhere
from runner.compare.verdict_types import JudgedSetting, Verdict
from runner.console.numbers import loss
from runner.cost.spent import money

LEVEL = "95 %"
NAMED = 4
"""With more settings than this, the rest of a group is only counted."""


@dataclass(frozen=True, slots=True)
class Background:
    """What a verdict's sentences need besides the verdict."""

    sweeps: Sequence[str]
    evaluated_later: int
    """The runs that are judged by `axosweep eval`."""
    ranked_first: JudgedSetting
    """By the eval loss."""
    seeds_here: float | None
    """The spread of the few seeds that there are, enough or not."""
    seeds_elsewhere: SeedsElsewhere | None
    without_rows: str
    """A sentence about the runs that have no per-row losses; empty if there are none."""


def sentences(verdict: Verdict, background: Background) -> list[str]:
    """The first is the verdict."""
    parts = [
        headline(verdict),
        _way_to_settle(verdict, background.sweeps),
        _unsteady(verdict),
        _disagreement(verdict, background.ranked_first),
        _seeds(verdict, background),
        _documents(verdict),
        _evaluated_later(verdict, background.evaluated_later),
        background.without_rows,
        not_judged(len(verdict.left_out)),
    ]
    return [one for one in parts if one]


def headline(verdict: Verdict) -> str:
    """Which settings are the best; if there are several, the cheapest of them."""
    group, worse = verdict.best_group, verdict.worse
    if verdict.may_be_seeds:
        return (
            f"On these runs, {verdict.settings[0].name} has the lowest loss. The settings were trained with "
            "different seeds, which may be the only reason. Train all settings with the same seeds."
        )
    if len(group) == 1:
        many = "both others" if len(worse) == 2 else f"all {len(worse)} others"
        than = many if len(worse) > 1 else worse[0].name if worse else "settings with a diverged seed"
        return f"{group[0].name} is better than {than} ({LEVEL})."
    word = "cheaper" if len(group) == 2 else "cheapest"
    price = price_of(verdict)
    cheapest = f" The {word} is {verdict.cheapest.name} ({price})." if price else ""
    if len(group) == 2:
        return f"{group[0].name} and {group[1].name} cannot be told apart ({LEVEL}).{cheapest}"
    return f"These {len(group)} settings cannot be told apart ({LEVEL}): {names_of(group)}.{cheapest}"


def names_of(ones: Sequence[JudgedSetting]) -> str:
    names = [one.name for one in (ones if len(ones) <= NAMED else ones[: NAMED - 1])]
    return "; ".join(names) + (f"; and {len(ones) - len(names)} more" if len(names) < len(ones) else "")


def price_of(verdict: Verdict) -> str:
    """The price of the cheapest setting in the best group: `$1.20 per run`, `61 s of training per run`. Empty if it is
    unknown."""
    one = verdict.cheapest
    if one.dollars is not None and all(each.dollars is not None for each in verdict.best_group):
        even, paid = money(one.dollars), money(one.dollars if one.paid_dollars is None else one.paid_dollars)
        shared = f" with an even share of the containers' starts; paid {paid}" if even != paid else ""
        return f"{even} per run{shared}"
    return "" if one.train_seconds is None else f"{one.train_seconds:.3g} s of training per run"


def _way_to_settle(verdict: Verdict, sweeps: Sequence[str]) -> str:
    """For one sweep: settle's further seeds belong to it."""
    if len(verdict.best_group) == 1 or len(sweeps) != 1:
        return ""
    return f"`axosweep settle {sweeps[0]}` trains further seeds of these until one is shown to be better."


def _unsteady(verdict: Verdict) -> str:
    ones = [one for one in verdict.settings if one.is_unsteady]
    if not ones:
        return ""
    verb, their = ("is", "its") if len(ones) == 1 else ("are", "their")
    return f"{names_of(ones)} {verb} left out of this: {their} seeds differ far more than those of the others."


def _disagreement(verdict: Verdict, first: JudgedSetting) -> str:
    best = verdict.settings[0]
    if first is best or first.is_unsteady:
        return ""
    worse = "" if first.in_best_group else ", which is shown to be better"
    return (
        f"By eval loss, {first.name} is first; by the mean over tokens, {best.name} is{worse} "
        f"({loss(best.loss)} against {loss(first.loss)}). The eval loss is a mean over batches, so a token counts "
        "for more in a batch with few tokens. The verdict uses the mean over tokens."
    )


def _seeds(verdict: Verdict, background: Background) -> str:
    if verdict.seed_sd is not None:
        return (
            f"Seeds of one setting differ by {loss(verdict.seed_sd)} (standard deviation); the intervals include this."
        )
    here, elsewhere = background.seeds_here, background.seeds_elsewhere
    why = "no setting has several seeds" if here is None else "too few settings have several seeds"
    known = f" The few that there are differ by {loss(here)} (standard deviation)." if here is not None else ""
    if elsewhere is not None:
        known += (
            f" In {elsewhere.sweep}, seeds of one setting differ by {loss(elsewhere.sd)} in eval loss "
            f"({100 * elsewhere.relative:.2g} %)."
        )
    return f"Seed noise unknown: {why}, so this holds for these runs, and other seeds may reverse it.{known}"


def _documents(verdict: Verdict) -> str:
    if verdict.documents_known:
        return ""
    return (
        f"It is unknown which rows were cut from one document, so each of the {verdict.rows} counts as its own. If "
        "several rows are from the same document, the intervals are too narrow."
    )


def _evaluated_later(verdict: Verdict, number: int) -> str:
    judged = sum(len(one.runs) for one in verdict.settings)
    if not 0 < number < judged:
        return ""
    runs = "1 run is" if number == 1 else f"{number} runs are"
    return (
        f"{runs} judged by `axosweep eval`, the rest by the last evaluation of their training. The two may compute in "
        "different ways (kernels, precision), so a very small difference may come from that."
    )


def not_judged(number: int) -> str:
    """Empty if there are none."""
    if not number:
        return ""
    runs = "1 run is" if number == 1 else f"{number} runs are"
    return f"{runs} not judged: other rows than the rest, or a loss that is not finite."
