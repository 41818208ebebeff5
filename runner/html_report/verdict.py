"""The verdicts of a sweep for its report: sentences for people who read nothing else, and intervals to draw. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from runner.compare.table import interval
from runner.compare.verdict_types import JudgedSetting, Verdict
from runner.compare.verdict_words import names_of, price_of
from runner.console.redact import redact
from runner.html_report.curves import rounded

MOST_SETTINGS = 60
"""To draw; the rest are only counted."""
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def verdict_values(verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    """What the page draws of each."""
    return [
        {
            "rows": one.eval_fingerprint[:8] if len(verdicts) > 1 else "",
            "lead": redact(lead(one)),
            "sentences": [redact(line) for line in one.sentences[1:]],
            "held_out": one.rows,
            "documents": one.documents if one.documents_known else None,
            "settings": [_setting(setting) for setting in one.settings[:MOST_SETTINGS]],
            "not_drawn": len(one.settings[MOST_SETTINGS:]),
        }
        for one in verdicts
    ]


def lead(verdict: Verdict) -> str:
    """What to take, and how sure that is."""
    group, others = verdict.best_group, len(verdict.worse)
    if verdict.may_be_seeds:
        return (
            f"Nothing is decided: {verdict.settings[0].name} has the lowest loss, but the settings were trained "
            "with different seeds, which may be the only reason."
        )
    if len(group) == 1:
        several = "both others" if others == 2 else f"all {_number(others)} other settings"
        than = several if others > 1 else verdict.worse[0].name if others else "settings with a diverged seed"
        return f"Take {group[0].name}: it does better than {than}. {_certainty(verdict)}"
    price = price_of(verdict)
    parts = [
        f"{_number(len(group)).capitalize()} settings cannot be told apart: {names_of(group)}.",
        f"The other {_number(others)} do worse." if others > 1 else "The other one does worse." if others else "",
        f"Take {verdict.cheapest.name}, which costs least ({price})." if price else "",
        _certainty(verdict),
    ]
    return " ".join(part for part in parts if part)


def _certainty(verdict: Verdict) -> str:
    if verdict.seed_sd is not None:
        return "This holds with 95 % confidence, for other seeds as well."
    if verdict.seed_degrees:
        return (
            "This holds with 95 % confidence for these runs; for other seeds it is unknown, since too few were trained."
        )
    return "This holds with 95 % confidence for these runs; each setting has one seed, and other seeds may reverse it."


def _setting(one: JudgedSetting) -> dict[str, Any]:
    return {
        "name": redact(one.name),
        "loss": rounded(one.loss),
        "difference": rounded(one.difference),
        "low": rounded(one.low),
        "high": rounded(one.high),
        "interval": "" if one.low == one.high else interval(one),
        "runs": len(one.runs),
        "is_best": one.in_best_group,
        "is_cheapest": one.is_cheapest,
        "dollars": rounded(one.dollars),
        "train_seconds": rounded(one.train_seconds),
    }


def _number(number: int) -> str:
    return NUMBERS[number] if number < len(NUMBERS) else str(number)
