"""The card at the top of a report: the best setting, its spread, its gain over the base model. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from runner.compare.metrics import Curves
from runner.compare.params import show_value
from runner.compare.ranking import OBJECTIVE
from runner.console.redact import redact
from runner.html_report.curves import rounded
from runner.html_report.settings import Setting, is_ranked, ranked


def card(
    settings: Sequence[Setting], curves: Mapping[str, Curves], started_from: Mapping[str, str]
) -> dict[str, Any] | None:
    """The best setting of the largest set of runs with the same held-out rows; None if no run is ranked.

    `settings`: best first within each eval fingerprint. `curves`, `started_from`: by run key; the second has the
    checkpoint of each run that continues from one, as RUN@STEP.
    """
    sets = ranked(settings)
    if not sets:
        return None
    largest = max(sets, key=len)
    best = largest[0]
    finals = [row.final for row in best.rows if is_ranked(row)]
    before = [value for key in best.keys if (value := _before_training(curves[key], started_from.get(key))) is not None]
    dollars = [row.dollars for row in best.rows if row.dollars is not None]
    return {
        "params": [[name, redact(show_value(value))] for name, value in best.params.items()],
        "runs": list(best.keys),
        "settings": len(largest),
        "repeated": any(one.n > 1 for one in largest),
        "n": best.n,
        "mean": rounded(best.mean),
        "sd": rounded(best.sd),
        "low": rounded(finals[0]),
        "high": rounded(finals[-1]),
        "before": rounded(statistics.fmean(before)) if before else None,
        "before_is": "its start checkpoint" if any(key in started_from for key in best.keys) else "the base model",
        "dollars": rounded(sum(dollars)) if dollars else None,
        "seconds": rounded(sum(row.seconds for row in best.rows if row.seconds is not None)),
        "rows": str(best.eval_fingerprint)[:8] if len(sets) > 1 else "",
    }


def _before_training(curves: Curves, start: str | None) -> float | None:
    """The metric of the model as it was before the first step; None if that was not evaluated."""
    step = int(start.partition("@")[2]) if start else 0
    return curves.by_name.get(OBJECTIVE, {}).get(step)
