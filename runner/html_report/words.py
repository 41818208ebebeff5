"""The question of a sweep and its answer, in a few sentences that claim no more than the runs show. Pure."""

from __future__ import annotations

import math
import re
import shlex
from collections import Counter
from collections.abc import Sequence
from typing import Any

from runner.compare.params import show_values
from runner.compare.ranking import Row
from runner.compare.settings import SEEDS, pooled_sd
from runner.console.numbers import loss
from runner.html_report.settings import Setting, is_ranked, ranked
from runner.store.run_state import status_text


def question(rows: Sequence[Row], own: str | None, metric: str) -> str:
    """The sweep file's `own` question, if it has one; otherwise, one about the varied parameters."""
    if own:
        return own
    names = [name for name in (rows[0].params if rows else {}) if name not in SEEDS]
    if not names:
        return f"What {metric} does this configuration reach?"
    counted = [f"{name} ({len(set(show_values([row.params.get(name) for row in rows])))} values)" for name in names]
    return f"Which {_listed(counted)} gives the lowest {metric}?"


def question_in(file_text: str) -> str | None:
    """The question in the comments at the top of a sweep file: up to the first question mark.

    >>> question_in("# @package _global_\\n# Which rank,\\n# and why? It is known.\\nhydra:\\n")
    'Which rank, and why?'
    """
    head: list[str] = []
    for line in file_text.splitlines():
        if not line.startswith("#"):
            break
        head.append(line.lstrip("# ").strip())
    text = " ".join(line for line in head if line and not line.startswith(("@", "axosweep ")))
    found = re.match(r"[^?.]*\?", text)
    return found[0].strip() if found else None


def sweep_file_of(command: str) -> str | None:
    """The name in `+sweeps=NAME` of a command line."""
    try:
        words = shlex.split(command)
    except ValueError:
        return None
    named = [word.partition("=")[2] for word in words if word.partition("=")[0].lstrip("+") == "sweeps"]
    return named[0] if named else None


def answer(rows: Sequence[Row], settings: Sequence[Setting], metric: str, *, judged: bool = False) -> list[str]:
    """The winner with its lead, and how far that can be trusted, unless a verdict says that already (`judged`).

    `settings`: best first within each eval fingerprint.
    """
    sets = ranked(settings)
    if not sets:
        return [f"No run has finished with its {metric} yet: {counted(rows)}."]
    sentences: list[str] = []
    for ones in sets:
        rows_text = f" on the held-out rows {str(ones[0].eval_fingerprint)[:8]}" if len(sets) > 1 else ""
        sentences.append(_winner(ones, metric, rows_text))
    if len(sets) > 1:
        sentences.append("Runs with different held-out rows are not ranked together.")
    able = {key for ones in sets for one in ones for key in one.keys}
    rest = [row for row in rows if not is_ranked(row) or row.key not in able]
    if rest:
        verb = "is" if len(rest) == 1 else "are"
        sentences.append(f"{len(rest)} of {len(rows)} runs {verb} not ranked: {counted(rest)}.")
    if not judged:
        sentences.append(_noise(max(sets, key=len), metric))
    return [line for line in sentences if line]


def counted(rows: Sequence[Row]) -> str:
    """`2 running, 1 failed (oom)`."""
    counts = Counter(status_text(row.status, row.reason, row.rung or 0) for row in rows).most_common()
    return ", ".join(f"{number} {status}" for status, number in counts)


def ranked_groups(rows: Sequence[Row]) -> list[list[Row]]:
    """The finished runs with a metric, grouped by their held-out rows, the best of each group first."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if is_ranked(row):
            groups.setdefault(str(row.eval_fingerprint), []).append(row)
    return [sorted(group, key=lambda row: row.final or 0.0) for group in groups.values()]


def _winner(ones: Sequence[Setting], metric: str, rows_text: str) -> str:
    best = ones[0]
    means = any(one.n > 1 for one in ones)
    value = loss(best.mean) + (f" ± {loss(best.sd)} over {best.n} seeds" if best.sd is not None else "")
    winner = f"{best.name} has the lowest {'mean' if means else 'final'} {metric}{rows_text}: {value}"
    if means and best.n == 1:
        winner += " from one run alone"
    if len(ones) == 1:
        return f"{winner}. It is the only {'setting' if means else 'finished run'} there."
    behind = (ones[1].mean or 0.0) - (best.mean or 0.0)
    worst = (ones[-1].mean or 0.0) - (best.mean or 0.0)
    lead = f"{winner}, {loss(behind)} below the next ({ones[1].name})"
    return f"{lead} and {loss(worst)} below the last of {len(ones)}." if len(ones) > 2 else f"{lead}."


def _noise(ones: Sequence[Setting], metric: str) -> str:
    """How much runs with different seeds but equal settings differ, so that a lead can be compared with chance."""
    sd = pooled_sd((one.n, one.sd) for one in ones if one.sd is not None)
    if sd is None:
        return "Each setting was run once, so the size of chance differences is unknown." if len(ones) > 1 else ""
    varied = f"Runs that differ only in their seed vary by {loss(sd)} (standard deviation of {metric})."
    if len(ones) == 1 or not sd:
        return varied
    lead = (ones[1].mean or 0.0) - (ones[0].mean or 0.0)
    error = sd * math.sqrt(1 / ones[0].n + 1 / ones[1].n)
    if lead < 2 * error:
        return f"{varied} That alone can explain the lead: its standard error is {loss(error)}."
    return f"{varied} The lead is {lead / error:.1f} times its standard error, {loss(error)}."


def _listed(parts: Sequence[Any]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return str(parts[0]) if len(parts) == 1 else f"{', '.join(map(str, parts[:-1]))} and {parts[-1]}"
