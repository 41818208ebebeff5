"""The question of a sweep and its answer, each in a sentence or two that claim no more than the runs show. Pure."""

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


def question(rows: Sequence[Row], asked: str | None, metric: str) -> str:
    """The sweep file's own question, if it has one; else what was varied."""
    if asked:
        return asked
    names = [name for name in (rows[0].params if rows else {}) if name not in SEEDS]
    if not names:
        return f"What {metric} does this configuration reach?"
    counted = [f"{name} ({len({show_value(row.params.get(name)) for row in rows})} values)" for name in names]
    return f"Which {_listed(counted)} gives the lowest {metric}?"


def asked_in(file_text: str) -> str | None:
    """The question in the comments at the head of a sweep file: up to the first question mark.

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
    """The winner with its lead, and what limits that. `names`: what each run is called."""
    groups = ranked_groups(rows)
    finished = [row for group in groups for row in group]
    if not finished:
        return [f"No run has finished with its {metric} yet: {counted(rows)}."]
    said: list[str] = []
    for group in groups:
        held = f" on the held-out rows {str(group[0].eval_fingerprint)[:8]}" if len(groups) > 1 else ""
        said.append(_winner(group, metric, names, held))
    if len(groups) > 1:
        said.append("Runs that are judged by different held-out rows are not ranked together.")
    left = len(rows) - len(finished)
    if left:
        rest = [row for row in rows if not _is_ranked(row)]
        said.append(f"{left} of {len(rows)} runs {'is' if left == 1 else 'are'} not ranked: {counted(rest)}.")
    said.append(_noise(max(groups, key=len), metric))
    return [line for line in said if line]


def counted(rows: Sequence[Row]) -> str:
    """`2 running, 1 failed (oom)`."""
    counts = Counter((row.status, row.reason) for row in rows).most_common()
    return ", ".join(f"{number} {status_text(status, reason)}" for (status, reason), number in counts)


def ranked_groups(rows: Sequence[Row]) -> list[list[Row]]:
    """The finished runs with a metric, the best first, apart for each set of held-out rows."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if _is_ranked(row):
            groups.setdefault(str(row.eval_fingerprint), []).append(row)
    return [sorted(group, key=lambda row: row.final or 0.0) for group in groups.values()]


def _is_ranked(row: Row) -> bool:
    finite = row.final is not None and math.isfinite(row.final)
    return row.status is RunStatus.SUCCEEDED and finite and bool(row.eval_fingerprint)


def _winner(group: Sequence[Row], metric: str, names: Mapping[str, str], held: str) -> str:
    best = group[0]
    said = f"{names[best.key]} has the lowest final {metric}{held}: {best.final:.4f}"
    if len(group) == 1:
        return f"{said}. It is the only finished run there."
    behind = (group[1].final or 0.0) - (best.final or 0.0)
    worst = (group[-1].final or 0.0) - (best.final or 0.0)
    told = f"{said}, {behind:.4f} below the next ({names[group[1].key]})"
    return f"{told} and {worst:.4f} below the last of {len(group)}." if len(group) > 2 else f"{told}."


def _noise(group: Sequence[Row], metric: str) -> str:
    """How much runs differ that differ in their seed only: what a lead has to be held against."""
    settings: dict[str, list[float]] = {}
    for row in group:
        setting = label({name: value for name, value in row.params.items() if name not in SEEDS})
        settings.setdefault(setting, []).append(row.final or 0.0)
    repeated = [finals for finals in settings.values() if len(finals) > 1]
    if not repeated:
        return "Each setting was run once: how much of a difference is chance is not known." if len(group) > 1 else ""
    freedom = sum(len(finals) - 1 for finals in repeated)
    spread = math.sqrt(sum(statistics.variance(finals) * (len(finals) - 1) for finals in repeated) / freedom)
    means = sorted((statistics.mean(finals), setting, len(finals)) for setting, finals in settings.items())
    best = f" Over seeds {means[0][1]} is best: {means[0][0]:.4f} on average." if len(means) > 1 and means[0][1] else ""
    return f"Runs that differ in their seed only spread by {spread:.4f} (standard deviation of {metric}).{best}"


def _listed(parts: Sequence[Any]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return str(parts[0]) if len(parts) == 1 else f"{', '.join(map(str, parts[:-1]))} and {parts[-1]}"
