"""The `search` node -> a SearchChoice, checked: each mistake is one message."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from runner.composing.axes import Axis, AxisRules
from runner.errors import SweepError, did_you_mean
from runner.request import SearchChoice, SearchMethod

COUNTED = (SearchMethod.RANDOM, SearchMethod.TPE)
"""The methods that need the number of points."""
HALVED = (SearchMethod.GRID, SearchMethod.RANDOM)
"""The methods that choose all points before the first run starts, so that runs can be compared at rungs."""

NO_SEARCH = ("search.method=grid", "search.runs=null", "search.metric=eval_loss", "search.rungs=null")
"""Overrides for a command that runs exactly the runs that it names, whatever the sweep file of a run searches for."""


def search_choice(node: Mapping[str, Any]) -> SearchChoice:
    """Raises SweepError for a node that means nothing. `node`: fields of SearchChoice; others have their defaults."""
    values = {**{one.name: one.default for one in fields(SearchChoice)}, "rungs": None, **node}
    method = _method(values["method"])
    runs = _runs(values["runs"], method)
    seed = _whole("seed", values["seed"], 0)
    rungs = _rungs(values["rungs"], method)
    eta = _whole("eta", values["eta"], 2)
    metric = values["metric"]
    if not isinstance(metric, str) or not metric:
        raise SweepError(f"search.metric={metric}: the name of a metric is expected, such as eval_loss.")
    if metric != SearchChoice().metric and method in HALVED:
        what = "search.rungs compares runs by eval_loss" if rungs else f"search={method} draws no point by a metric"
        raise SweepError(f"search.metric={metric}: {what}. It is for search=coordinate and search=tpe.")
    for key in ("audit", "maximize"):
        if not isinstance(values[key], bool):
            raise SweepError(f"search.{key}={values[key]}: expected true or false.")
    if values["maximize"] and method in HALVED:
        raise SweepError(
            f"search.maximize=true is for search=coordinate and search=tpe; search={method} has no metric."
        )
    return SearchChoice(method, runs, seed, metric, rungs, eta, values["audit"], values["maximize"])


def _method(value: Any) -> SearchMethod:
    try:
        return SearchMethod(value)
    except ValueError as error:
        meant = did_you_mean(str(value), SearchMethod)
        raise SweepError(f"search.method={value}: expected one of {', '.join(SearchMethod)}.{meant}") from error


def _runs(value: Any, method: SearchMethod) -> int | None:
    if method in COUNTED and value is None:
        raise SweepError(f"search={method} needs the number of runs: search.runs=20.")
    if method not in COUNTED and value is not None:
        raise SweepError(
            f"search.runs={value}: search={method} knows by itself how many runs there are. Leave search.runs out, or "
            "choose search=random or search=tpe."
        )
    return None if value is None else _whole("runs", value, 1)


def _whole(name: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise SweepError(f"search.{name}={value}: a whole number of at least {least} is expected.")
    return value


def _rungs(value: Any, method: SearchMethod) -> tuple[float, ...]:
    if value is None:
        return ()
    expected = "expected parts of a run's steps, ascending, as in 'search.rungs=[0.2,0.6]'"
    if not isinstance(value, list) or not value:
        raise SweepError(f"search.rungs={value}: {expected}. Leave it out to finish every run.")
    for one in value:
        if isinstance(one, bool) or not isinstance(one, int | float) or not 0 < one < 1:
            raise SweepError(f"search.rungs: {one} is not between 0 and 1; {expected}.")
    if any(later <= earlier for earlier, later in itertools.pairwise(value)):
        raise SweepError(f"search.rungs={value} does not ascend; {expected}.")
    if method not in HALVED:
        raise SweepError(
            f"search.rungs is for search=grid and search=random. search={method} decides by runs that were trained to "
            "their end."
        )
    return tuple(value)


def check_axes(search: SearchChoice, axes: tuple[Axis, ...], *, single: bool) -> None:
    """Raises SweepError for a search that has nothing to search. `single`: the command line has no -m."""
    if search == SearchChoice():
        return
    what = f"search={search.method}" if search.method is not SearchMethod.GRID else "search.rungs"
    if search.method is SearchMethod.GRID and not search.rungs:
        return  # its other settings have no effect
    example = "learning_rate=1e-4,2e-4" if search.method is SearchMethod.GRID else "learning_rate=interval(1e-5,1e-3)"
    if single or not axes:
        missing = "-m and axes" if single else "axes"
        raise SweepError(f"{what} needs {missing}, as in -m '{example}'. This asks for a single run.")


def refuse_beside_others(node: Mapping[str, Any], rules: AxisRules) -> None:
    """Raises SweepError if a third-party sweeper chooses the points, and a setting says how ours would. `node`:
    search"""
    default = {**asdict(SearchChoice()), "rungs": None}
    changed = [f"search.{key}={value}" for key, value in node.items() if value != default.get(key)]
    if words := " ".join([*changed, *([rules.words] if rules.words else [])]):
        raise SweepError(
            f"{words}: that is for axosweep's own sweeper, and hydra/sweeper= chooses another one. Leave out "
            f"{words}, or hydra/sweeper=."
        )
