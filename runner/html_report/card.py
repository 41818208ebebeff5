"""The card at the top of a report: the best setting, its spread, its gain over the base model. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from runner.compare.groups import SEEDS, Group
from runner.compare.metrics import Curves
from runner.compare.params import label, show_value
from runner.compare.ranking import OBJECTIVE, Row
from runner.console.redact import redact
from runner.html_report.curves import rounded
from runner.html_report.words import ranked_settings

START = "from"
"""The parameter of a run that continues from a checkpoint."""


def setting_names(rows: Sequence[Row]) -> dict[str, str]:
    """Run key -> the name of its setting: its parameters without the seeds."""
    return {row.key: label(setting_of(row)) or label(row.params) or row.key for row in rows}


def setting_of(row: Row) -> dict[str, Any]:
    return {name: value for name, value in row.params.items() if name not in SEEDS}


def card(
    rows: Sequence[Row], groups: Sequence[Group], curves: Mapping[str, Curves], started_from: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The best setting of the largest set of runs with the same held-out rows; None if no run is ranked.

    `groups`: the settings, best first within each eval fingerprint. `curves`, `started_from`: by run key; the second
    has the checkpoint of each run that continues from one.
    """
    sets = ranked_settings(groups)
    if not sets:
        return None
    largest = max(sets, key=len)
    best = largest[0]
    members = sorted((row for row in rows if row.key in best.runs), key=lambda row: (row.final is None, row.final))
    finals = [row.final for row in members if row.final is not None]
    before = [value for row in members if (value := _before_training(curves[row.key])) is not None]
    dollars = [row.dollars for row in members if row.dollars is not None]
    return {
        "params": [[name, redact(show_value(value))] for name, value in setting_of(members[0]).items()],
        "runs": [row.key for row in members],
        "settings": len(largest),
        "repeated": any(group.n > 1 for group in largest),
        "n": best.n,
        "mean": rounded(best.mean),
        "sd": rounded(best.sd),
        "low": rounded(min(finals, default=None)),
        "high": rounded(max(finals, default=None)),
        "before": rounded(statistics.fmean(before)) if before else None,
        "before_is": "its start checkpoint" if any(key in started_from for key in best.runs) else "the base model",
        "dollars": rounded(sum(dollars)) if dollars else None,
        "seconds": rounded(sum(row.seconds for row in members if row.seconds is not None)),
        "rows": str(best.eval_fingerprint)[:8] if len(sets) > 1 else "",
    }


def _before_training(curves: Curves) -> float | None:
    """The metric of the model as it was before the first step; None if that was not evaluated."""
    return curves.by_name.get(OBJECTIVE, {}).get(0)
