"""A plan compared with an earlier sweep: the runs that only one of them has, and the parameters that differ."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modal_app.store.layout import Store
from modal_app.store.read_json import read_json
from modal_app.store.step import StepKind
from runner.compare.params import flat_experiment, label, show_value, shown_params
from runner.compare.source import flat_run
from runner.store.finding import sweep_in
from runner.store.ledger import Ledger
from runner.types import Plan, Run

TRAINER = "the trainer's lock"
CONTENT = "what "
MOST_CHANGES = 5
"""That a sentence names."""


@dataclass(frozen=True, slots=True)
class DiffRun:
    key: str
    params: Mapping[str, Any]
    """The parameters that differ between any two runs of the plan and the sweep."""


@dataclass(frozen=True, slots=True)
class Change:
    """A parameter with different values in the plan and in the sweep. No value: it is not set."""

    name: str
    there: tuple[Any, ...]
    here: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class PlanDiff:
    sweep: str
    """The earlier one."""
    only_there: tuple[DiffRun, ...]
    only_here: tuple[DiffRun, ...]
    both: tuple[DiffRun, ...]
    changes: tuple[Change, ...]


def plan_diff(plan: Plan, stores: Sequence[Store], sweep: str, *, trainer: str) -> PlanDiff:
    """`sweep` is the earlier sweep's id, or its beginning; `trainer` is the hash of the current trainer lock.

    Raises SweepError when there is no such sweep, or several fit.
    """
    found = sweep_in(stores, sweep)
    earlier = Ledger(found.store, found.sweep).plan().runs
    there = {run.key: flat_run(found.store, run.key) | _inputs_there(found.store, run.key) for run in earlier}
    here = {
        one.run.key: flat_experiment(one.run.experiment) | _inputs_here(one.run) | {TRAINER: trainer}
        for one in plan.runs
    }
    flat = there | here
    words = {run.key: run.overrides for run in earlier}
    words |= {one.run.key: one.run.experiment.overrides for one in plan.runs}
    params = dict(zip(flat, shown_params(list(flat.values()), [words[key] for key in flat]), strict=True))
    return PlanDiff(
        sweep=found.sweep,
        only_there=_runs(params, (key for key in there if key not in here)),
        only_here=_runs(params, (key for key in here if key not in there)),
        both=_runs(params, (key for key in there if key in here)),
        changes=tuple(_changes(list(there.values()), list(here.values()))),
    )


def changed_since(run: Run, store: Store, key: str, *, trainer: str) -> str:
    """What differs between a run and an earlier one, the run `key` of this store, in words; empty if it is unknown."""
    there = flat_run(store, key) | _inputs_there(store, key)
    if TRAINER not in there:
        return ""
    here = flat_experiment(run.experiment) | _inputs_here(run) | {TRAINER: trainer}
    changes = [_in_words(one) for one in _changes([there], [here])]
    more = f", and {len(changes) - MOST_CHANGES} more" if len(changes) > MOST_CHANGES else ""
    return f"{', '.join(changes[:MOST_CHANGES])}{more}"


def _in_words(change: Change) -> str:
    if change.name == TRAINER or change.name.startswith(CONTENT):
        return change.name
    return f"{change.name} ({_shown(change.there)} then, {_shown(change.here)} now)"


def _runs(params: Mapping[str, Mapping[str, Any]], keys: Iterable[str]) -> tuple[DiffRun, ...]:
    return tuple(DiffRun(key, params[key]) for key in keys)


def _inputs_there(store: Store, key: str) -> dict[str, Any]:
    identity = read_json(store.folder(StepKind.TRAIN, key).identity)
    found = {_content(one["at"]): one["identity"] for one in identity.get("inputs", ())}
    return found | ({TRAINER: identity["trainer_lock"]} if "trainer_lock" in identity else {})


def _inputs_here(run: Run) -> dict[str, Any]:
    return {_content(one.at): one.identity for one in run.inputs}


def _content(at: str) -> str:
    return f"{CONTENT}{at} holds"


def _changes(there: Sequence[Mapping[str, Any]], here: Sequence[Mapping[str, Any]]) -> Iterable[Change]:
    """In the order of the plan's config; parameters that only the sweep has come last."""
    for name in dict.fromkeys(name for flat in (*here, *there) for name in flat):
        values = _values(name, there), _values(name, here)
        if {*map(_written, values[0])} != {*map(_written, values[1])}:
            yield Change(name, *values)


def _values(name: str, flats: Sequence[Mapping[str, Any]]) -> tuple[Any, ...]:
    """Each distinct value once; null for runs that do not set it. Empty if no run sets it."""
    distinct = {_written(flat.get(name)): flat.get(name) for flat in flats}
    return () if [*distinct.values()] == [None] else tuple(distinct.values())


def _written(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def diff_lines(diff: PlanDiff) -> list[str]:
    """For people: what changed first, since it explains the runs."""
    lines = [f"Compared with {diff.sweep}:"]
    lines += [f"  {one.name}: {_shown(one.there)} there, {_shown(one.here)} here" for one in diff.changes]
    for runs, where in ((diff.only_there, "only there"), (diff.only_here, "only here"), (diff.both, "in both")):
        lines += [f"  {run.key}  {where:<10}  {label(run.params)}".rstrip() for run in runs]
    same = not diff.only_there and not diff.only_here
    return [*lines, "  The same runs."] if same else lines


def _shown(values: Sequence[Any]) -> str:
    return ", ".join(_short(value) for value in values) if values else "not set"


def _short(value: Any) -> str:
    text = "null" if value is None else " ".join(show_value(value).split())
    return text[:12] if _is_digest(text) else text


def _is_digest(text: str) -> bool:
    return len(text) in (40, 64) and all(character in "0123456789abcdef" for character in text)
