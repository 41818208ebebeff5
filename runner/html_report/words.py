"""The question of a sweep and its answer, in a few sentences that claim no more than the runs show. Pure."""

from __future__ import annotations

import math
import re
import shlex
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from runner.compare.params import label, show_value
from runner.compare.ranking import Row
from runner.store.run_state import RunStatus, status_text

SEEDS = ("seed", "data.seed")


def question(rows: Sequence[Row], own: str | None, metric: str) -> str:
    """The sweep file's `own` question, if it has one; otherwise, one about the varied parameters."""
    if own:
        return own
    names = [name for name in (rows[0].params if rows else {}) if name not in SEEDS]
    if not names:
        return f"What {metric} does this configuration reach?"
    counted = [f"{name} ({len({show_value(row.params.get(name)) for row in rows})} values)" for name in names]
    return f"Which {_listed(counted)} gives the lowest {metric}?"


def asked_in(file_text: str) -> str | None:
    """The question in the comments at the top of a sweep file: up to the first question mark.

    >>> asked_in("# @package _global_\\n# Which rank,\\n# and why? It is known.\\nhydra:\\n")
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


def answer(rows: Sequence[Row], metric: str, names: Mapping[str, str]) -> list[str]:
    """The winner with its lead, and how far that can be trusted. `names`: run key -> name."""
    groups = ranked_groups(rows)
    finished = [row for group in groups for row in group]
    if not finished:
        return [f"No run has finished with its {metric} yet: {counted(rows)}."]
    sentences: list[str] = []
    for group in groups:
        rows_text = f" on the held-out rows {str(group[0].eval_fingerprint)[:8]}" if len(groups) > 1 else ""
        sentences.append(_winner(group, metric, names, rows_text))
    if len(groups) > 1:
        sentences.append("Runs with different held-out rows are not ranked together.")
    left = len(rows) - len(finished)
    if left:
        rest = [row for row in rows if not _is_ranked(row)]
        sentences.append(f"{left} of {len(rows)} runs {'is' if left == 1 else 'are'} not ranked: {counted(rest)}.")
    sentences.append(_noise(max(groups, key=len), metric))
    return [line for line in sentences if line]


def counted(rows: Sequence[Row]) -> str:
    """`2 running, 1 failed (oom)`."""
    counts = Counter((row.status, row.reason) for row in rows).most_common()
    return ", ".join(f"{number} {status_text(status, reason)}" for (status, reason), number in counts)


def ranked_groups(rows: Sequence[Row]) -> list[list[Row]]:
    """The finished runs with a metric, grouped by their held-out rows, the best of each group first."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if _is_ranked(row):
            groups.setdefault(str(row.eval_fingerprint), []).append(row)
    return [sorted(group, key=lambda row: row.final or 0.0) for group in groups.values()]


def _is_ranked(row: Row) -> bool:
    finite = row.final is not None and math.isfinite(row.final)
    return row.status is RunStatus.SUCCEEDED and finite and bool(row.eval_fingerprint)


def _winner(group: Sequence[Row], metric: str, names: Mapping[str, str], rows_text: str) -> str:
    best = group[0]
    winner = f"{names[best.key]} has the lowest final {metric}{rows_text}: {best.final:.4f}"
    if len(group) == 1:
        return f"{winner}. It is the only finished run there."
    behind = (group[1].final or 0.0) - (best.final or 0.0)
    worst = (group[-1].final or 0.0) - (best.final or 0.0)
    lead = f"{winner}, {behind:.4f} below the next ({names[group[1].key]})"
    return f"{lead} and {worst:.4f} below the last of {len(group)}." if len(group) > 2 else f"{lead}."


def _noise(group: Sequence[Row], metric: str) -> str:
    """How much runs with different seeds but equal settings differ, so that a lead can be compared with chance."""
    settings: dict[str, list[float]] = {}
    for row in group:
        setting = label({name: value for name, value in row.params.items() if name not in SEEDS})
        settings.setdefault(setting, []).append(row.final or 0.0)
    repeated = [finals for finals in settings.values() if len(finals) > 1]
    if not repeated:
        return "Each setting was run once, so the size of chance differences is unknown." if len(group) > 1 else ""
    freedom = sum(len(finals) - 1 for finals in repeated)
    spread = math.sqrt(sum(statistics.variance(finals) * (len(finals) - 1) for finals in repeated) / freedom)
    means = sorted((statistics.mean(finals), setting, len(finals)) for setting, finals in settings.items())
    best = f" {means[0][1]} has the lowest mean: {means[0][0]:.4f}." if len(means) > 1 and means[0][1] else ""
    return f"Runs that differ only in their seed vary by {spread:.4f} (standard deviation of {metric}).{best}"


def _listed(parts: Sequence[Any]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return str(parts[0]) if len(parts) == 1 else f"{', '.join(map(str, parts[:-1]))} and {parts[-1]}"
