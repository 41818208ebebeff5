"""How the metric depends on the parameters: rank statistics, the interaction of two, the Pareto front. Pure.

It only describes the existing runs, and shows no causes: in a sweep that is not a full grid, parameters vary together.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MOST_VALUES = 12
"""A numeric parameter with more distinct values is grouped into ranges."""
BINS = 5

Point = tuple[Mapping[str, Any], float]
"""The parameters of a run and its metric."""


def ranks(values: Sequence[float]) -> list[float]:
    """The rank of each value, from 1; equal values share the mean of their ranks.

    >>> ranks([3.0, 1.0, 3.0])
    [2.5, 1.0, 2.5]
    """
    order = sorted(range(len(values)), key=values.__getitem__)
    found = [0.0] * len(values)
    start = 0
    while start < len(order):
        end = start
        while end + 1 < len(order) and values[order[end + 1]] == values[order[start]]:
            end += 1
        for index in order[start : end + 1]:
            found[index] = (start + end) / 2 + 1
        start = end + 1
    return found


def spearman(xs: Sequence[float], ys: Sequence[float]) -> float | None:
    """Spearman's rank correlation (Pearson's of the ranks); None if one side does not vary or with under three points.

    >>> spearman([1, 2, 3, 4], [1, 10, 100, 1000])
    1.0
    """
    if len(xs) < 3 or len(set(xs)) < 2 or len(set(ys)) < 2:
        return None
    return round(statistics.correlation(ranks(xs), ranks(ys)), 6)


def rank_share(groups: Sequence[Sequence[float]]) -> float | None:
    """The share of the ranks' variance that lies between groups, minus what chance alone would cause (epsilon squared):
    from about 0 (none of it) to 1 (all of it). None if no group has two values.

    Unlike a rank correlation, it shows an effect that rises and falls, and the groups need no order.

    >>> rank_share([[1.0, 2.0], [9.0, 8.0]]), rank_share([[1.0], [2.0]])
    (0.7, None)
    """
    flat = ranks([value for group in groups for value in group])
    if len(flat) <= len(groups) or len(set(flat)) < 2:
        return None
    mean, start = (len(flat) + 1) / 2, 0
    total = sum((rank - mean) ** 2 for rank in flat)
    within = 0.0
    for group in groups:
        part = flat[start : start + len(group)]
        within += sum((rank - sum(part) / len(part)) ** 2 for rank in part)
        start += len(group)
    share = 1 - (within / (len(flat) - len(groups))) / (total / (len(flat) - 1))
    return round(max(0.0, share), 6)


def strength(effect: Mapping[str, Any]) -> float:
    """The order of effects: by the share, or without one by the square of the rank correlation."""
    share, rho = effect["share"], effect["spearman"]
    return float(share) if share is not None else float(rho or 0.0) ** 2


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def sorting_key(value: Any) -> str:
    """A key to sort and distinguish values of any type; numbers among texts stay in order."""
    return f"{value:020.9f}" if is_number(value) else str(value)


def effect(name: str, points: Sequence[Point], show: Callable[[Any], str]) -> dict[str, Any]:
    """The effect of one parameter: each value with its median and range, the rank statistics, the number of runs."""
    values = [params.get(name) for params, _ in points]
    metrics = [metric for _, metric in points]
    numeric = all(is_number(value) for value in values)
    bins = bins_of(values, show)
    groups: list[list[float]] = [[] for _ in bins.texts]
    for at, metric in zip(bins.where, metrics, strict=True):
        groups[at].append(metric)
    return {
        "name": name,
        "numeric": numeric,
        "runs": len(points),
        "spearman": spearman([value for value in values if value is not None], metrics) if numeric else None,
        "share": rank_share(groups),
        "where": list(bins.where),
        "groups": [_group(text, group) for text, group in zip(bins.texts, groups, strict=True)],
    }


@dataclass(frozen=True, slots=True)
class Bins:
    texts: Sequence[str]
    where: Sequence[int]
    """Of each value, the index of its text."""


def bins_of(values: Sequence[Any], show: Callable[[Any], str]) -> Bins:
    """Groups of values: one per distinct value, or, for many numbers, ranges with about the same number of runs.

    >>> bins_of([1, 2, 2], str)
    Bins(texts=['1', '2'], where=[0, 1, 1])
    """
    numbers = all(is_number(value) for value in values)
    if numbers and len(set(values)) > MOST_VALUES:
        ordered = sorted(values)
        edges = sorted({ordered[len(ordered) * part // BINS] for part in range(1, BINS)} - {ordered[0]})
        where = [sum(value >= edge for edge in edges) for value in values]
        inside = [
            [value for value, at in zip(values, where, strict=True) if at == part] for part in range(len(edges) + 1)
        ]
        return Bins([f"{show(min(part))} to {show(max(part))}" for part in inside], where)
    keys = [value if numbers else sorting_key(value) for value in values]
    distinct = sorted(set(keys))
    texts = {key: show(value) or "none" for key, value in zip(keys, values, strict=True)}
    return Bins([texts[key] for key in distinct], [distinct.index(key) for key in keys])


def interaction(effects: Sequence[Mapping[str, Any]], points: Sequence[Point], show: Callable[[Any], str]) -> Any:
    """The two parameters with the strongest effects, and the median metric of each pair of their values."""
    strongest = sorted(effects, key=strength, reverse=True)[:2]
    if len(strongest) < 2 or len(points) < 4:
        return None
    columns, rows = (bins_of([params.get(one["name"]) for params, _ in points], show) for one in strongest)
    inside: dict[tuple[int, int], list[float]] = {}
    for (_, metric), x, y in zip(points, columns.where, rows.where, strict=True):
        inside.setdefault((x, y), []).append(metric)
    cells = [
        {"x": x, "y": y, "median": statistics.median(found), "runs": len(found)}
        for (x, y), found in sorted(inside.items())
    ]
    x_name, y_name = (one["name"] for one in strongest)
    return {"x": x_name, "y": y_name, "xs": columns.texts, "ys": rows.texts, "cells": cells}


def pareto(costs: Sequence[float], metrics: Sequence[float]) -> list[int]:
    """The indices of the points that no other point beats in both, the cheapest first.

    >>> pareto([1.0, 2.0, 3.0, 3.0], [5.0, 6.0, 4.0, 4.5])
    [0, 2]
    """
    front: list[int] = []
    best = math.inf
    for index in sorted(range(len(costs)), key=lambda index: (costs[index], metrics[index])):
        if metrics[index] < best:
            best = metrics[index]
            front.append(index)
    return front


def _group(text: str, metrics: Sequence[float]) -> dict[str, Any]:
    return {
        "value": text,
        "runs": len(metrics),
        "median": statistics.median(metrics),
        "low": min(metrics),
        "high": max(metrics),
    }
