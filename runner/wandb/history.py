"""Converts between a run's history in W&B and its metrics.jsonl, which have the same rows under different names. Pure,
except for reading the file."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from runner.compare.metrics import Curves

MOST_ROWS = 10_000
"""The most rows of a run's history that W&B returns."""
STEP = "train/global_step"
"""The optimizer step, in each row."""
TRAIN_LOSS, EVAL_LOSS = "train/loss", "eval/loss"
NOT_METRICS = frozenset({"step", "attempt", "time", "seconds", "tokens", "not_finite"})
"""Keys in a line of metrics.jsonl that are not metrics."""


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl as W&B's callback would have logged them; of a repeated step, the last.

    Evaluations and training losses are separate rows, as they are logged.
    """
    rows: dict[tuple[int, bool], dict[str, Any]] = {}
    for text in path.read_text(encoding="utf-8").split("\n") if path.exists() else ():
        try:
            line = json.loads(text)
        except ValueError:
            continue  # cut off by a kill
        step, evaluation = line["step"], "eval_loss" in line
        rows.pop((step, evaluation), None)
        rows[step, evaluation] = dict(_metrics(line)) | {STEP: step}
    return [rows[key] for key in sorted(rows, key=lambda key: key[0])]


def missing(rows: Sequence[Mapping[str, Any]], history: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rows whose loss is missing in W&B at their step."""
    known = {(row[STEP], name) for row in history if STEP in row for name in (TRAIN_LOSS, EVAL_LOSS) if name in row}
    return [row for row in rows if (row[STEP], EVAL_LOSS if EVAL_LOSS in row else TRAIN_LOSS) not in known]


def curves_from(history: Iterable[Mapping[str, Any]]) -> Curves:
    """Rows of W&B, under the names of metrics.jsonl; the last value of each step and name counts.

    >>> rows = [{"_step": 1, STEP: 2, "eval/loss": 1.0}, {"_step": 0, STEP: 2, "eval/loss": 9.0, "eval/ppl": 3.0}]
    >>> dict(curves_from(rows).by_name)
    {'eval_loss': {2: 1.0}, 'eval_ppl': {2: 3.0}}
    """
    collected: dict[str, dict[int, float]] = {}
    for row in sorted(history, key=lambda one: one.get("_step") or 0):
        if not isinstance(row.get(STEP), int | float) or not {TRAIN_LOSS, EVAL_LOSS} & row.keys():
            continue  # the summary at the end, which is not in metrics.jsonl
        for name, value in row.items():
            number = _number(value)
            if number is not None and name != STEP and not name.startswith("_"):
                collected.setdefault(_name_here(name), {})[int(row[STEP])] = number
    if "tokens/trainable" in collected:
        collected["tokens"] = collected["tokens/trainable"]
    return Curves({name: dict(sorted(points.items())) for name, points in collected.items()})


def _metrics(line: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in line.items():
        if name not in NOT_METRICS:
            yield _name_in_wandb(name), math.nan if value is None else value


def _name_in_wandb(name: str) -> str:
    """transformers renames metrics for W&B: `eval_loss` becomes `eval/loss`, and `loss` becomes `train/loss`."""
    return f"eval/{name.removeprefix('eval_')}" if name.startswith("eval_") else f"train/{name}"


def _name_here(name: str) -> str:
    return f"eval_{name.removeprefix('eval/')}" if name.startswith("eval/") else name.removeprefix("train/")


def _number(value: Any) -> float | None:
    """The value as a number. W&B writes NaN and infinities as words."""
    match value:
        case bool():
            return None
        case int() | float():
            return float(value) if math.isfinite(value) else math.nan
        case "NaN" | "Infinity" | "-Infinity":
            return math.nan
    return None
