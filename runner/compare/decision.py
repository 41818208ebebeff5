"""Whether a comparison shows one setting to be the best, and which run to take if it does not. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from runner.compare.ranking import EVAL_LOSS, Metric, Row
from runner.compare.row_losses import judgeable, unjudged_notes, without_rows
from runner.compare.verdict_types import Verdict
from runner.compare.verdict_words import not_judged
from runner.errors import SweepError
from runner.store.run_state import RunStatus

MAY_STILL_WIN = (RunStatus.RUNNING, RunStatus.PENDING)


def cheapest_of_best(best: Row, rows: Sequence[Row], verdict: Verdict | None, metric: Metric) -> Row:
    """The run with the lowest eval loss of the cheapest setting that is not shown to be worse than another.

    `best`: the run with the lowest eval loss of all, which `verdict` is about. Raises SweepError if it is unknown which
    settings these are.
    """
    if verdict is not None:
        return next(row for row in rows if row.key == verdict.cheapest.runs[0])
    if _is_alone(best, rows):
        return best
    raise SweepError(
        f"--cheapest-of-best: which settings may be as good as the best is unknown. {_unknown(rows, metric)}"
    )


def undecided(run: Row, rows: Sequence[Row], verdict: Verdict | None, metric: Metric) -> str:
    """Why it is not shown that the setting of this run is better than all others; empty if it is shown."""
    rest = [row for row in rows if row.status in MAY_STILL_WIN]
    if rest:
        runs = "1 run has" if len(rest) == 1 else f"{len(rest)} runs have"
        return f"{runs} not ended, and may be better."
    if verdict is None:
        return "There is no other setting to compare it with." if _is_alone(run, rows) else _unknown(rows, metric)
    if len(verdict.best_group) > 1 or verdict.may_be_seeds:
        return verdict.sentences[0]
    if run.key not in verdict.best_group[0].runs:
        return " ".join(verdict.sentences[:2])
    lacking = [row for row in rows if row.key in verdict.without_rows]
    return without_rows(lacking) or not_judged(len(verdict.left_out))


def _is_alone(best: Row, rows: Sequence[Row]) -> bool:
    """Whether no other setting with its held-out rows has finished."""
    return {row.setting for row in judgeable(rows) if row.eval_fingerprint == best.eval_fingerprint} <= {best.setting}


def _unknown(rows: Sequence[Row], metric: Metric) -> str:
    if metric != EVAL_LOSS:
        return f"Only the eval loss is measured by row, not {metric.name}."
    notes = unjudged_notes(rows, (), metric)
    return (
        notes[0] if notes else "A loss that is not a sum over tokens, as in preference tuning, is not measured by row."
    )
