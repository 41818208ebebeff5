"""Rows and groups as CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any

from runner.compare.groups import Group
from runner.compare.measured import is_of_a_task
from runner.compare.ranking import Metric, Row
from runner.compare.settings import OverSeeds
from runner.compare.stars import groups_judged
from runner.compare.table import rungs_of
from runner.compare.verdict_types import OF_A_RUN, JudgedSetting, Verdict, settings_by_run
from runner.cost.receipt import PARTS
from runner.store.searches import RungReached

NESTED = ("params", "measured", "over_seeds", "rungs", "receipt")


def rows_csv(rows: Sequence[Row], metric: Metric, verdicts: Sequence[Verdict] = ()) -> str:
    """Every field of a row except `record`. Parameters, measured values, the parts of its receipt, what a row has
    reached at rungs, the figures over the seeds of its setting and those of its verdict, if there is one, have columns
    of their own."""
    plain = [one.name for one in fields(Row) if one.name not in ("record", *NESTED)]
    seeds = [one.name for one in fields(OverSeeds)]
    later = [name for name in dict.fromkeys(name for row in rows for name in row.measured) if is_of_a_task(name)]
    names = list(dict.fromkeys(name for row in rows for name in row.params))
    heads = ["key", *(f"param.{name}" if name in plain else name for name in names), "metric"]
    rest = [name for name in plain if name != "key"]
    judged, rungs = settings_by_run(verdicts), rungs_of(rows)
    parts = [name for name in PARTS if any(row.receipt and name in row.receipt.parts for row in rows)]
    lines = [
        [
            row.key,
            *(row.params.get(name) for name in names),
            metric.name,
            *(getattr(row, name) for name in rest),
            *(getattr(row.over_seeds, name, None) for name in seeds),
            *(row.measured.get(name) for name in later),
            *(row.receipt.parts.get(name) if row.receipt else None for name in parts),
            *(value for one in rungs for value in _rung_cells(one.of(row))),
            *_verdict_cells(judged.get(row.key), verdicts),
        ]
        for row in rows
    ]
    seed_heads = [f"over_seeds.{name}" for name in seeds]
    rung_heads = [
        f"{name}.{one.rung}{'' if one.step is None else f'.step.{one.step}'}"
        for one in rungs
        for name in ("rung", "place", "of", "why")
    ]
    part_heads = [f"receipt.{name}" for name in parts]
    return _csv([[*heads, *rest, *seed_heads, *later, *part_heads, *rung_heads, *_verdict_heads(verdicts)], *lines])


def groups_csv(groups: Sequence[Group], metric: Metric, verdicts: Sequence[Verdict] = ()) -> str:
    names = list(dict.fromkeys(name for one in groups for name in one.params))
    rest = [one.name for one in fields(Group) if one.name != "params"]
    lines = [
        [
            *(one.params.get(name) for name in names),
            metric.name,
            *(getattr(one, name) for name in rest),
            *_verdict_cells(judged, verdicts),
        ]
        for one, judged in zip(groups, groups_judged(groups, verdicts), strict=True)
    ]
    return _csv([[*names, "metric", *rest, *_verdict_heads(verdicts)], *lines])


def _rung_cells(there: RungReached | None) -> tuple[Any, ...]:
    """What a run has reached at a rung: its loss, its place, of how many, and why it went on from there."""
    return (there.loss, there.place, there.of, there.why) if there else ("", "", "", "")


def _verdict_heads(verdicts: Sequence[Verdict]) -> list[str]:
    return [f"verdict.{name}" for name in OF_A_RUN] if verdicts else []


def _verdict_cells(one: JudgedSetting | None, verdicts: Sequence[Verdict]) -> list[Any]:
    return [getattr(one, name, None) for name in OF_A_RUN] if verdicts else []


def _csv(lines: Iterable[Iterable[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([[_cell(value) for value in line] for line in lines])
    return text.getvalue()


def _cell(value: Any) -> Any:
    match value:
        case None:
            return ""
        case float() if value != value or value in (float("inf"), float("-inf")):
            return ""
        case list() | tuple():
            return _text(" ".join(map(str, value)))
        case str():
            return _text(value)
        case _:
            return value


def _text(text: str) -> str:
    """A spreadsheet runs a cell that begins like this as a formula; behind an apostrophe, it shows it as a text."""
    return f"'{text}" if text.lstrip().startswith(("=", "+", "-", "@")) and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
