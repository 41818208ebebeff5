"""`search=tpe`: the points that Optuna's tree-structured Parzen estimator suggests, from what earlier ones reached.

Each question to Optuna and each answer is a line of a file in the sweep's folder, written before it is acted on. So
after a kill, a search finds the points that it has drawn, and the results that Optuna has not been given yet.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages.journal import BaseJournalBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from modal_app.store.lines import append_line, read_lines
from runner.search.space import Axis, Point, Value, ordered

STUDY = "axosweep"
FORBIDDEN = "forbidden"
"""The constraint that a point breaks which may not be run."""
REPEATS = "repeats"
"""Marks a point that was drawn before."""
RANDOM_SHARE = 3
"""One point in so many is drawn at random, at the beginning, but not more than MOST_RANDOM."""
MOST_RANDOM = 10


@dataclass(frozen=True, slots=True)
class DrawnPoint:
    """A point that was drawn."""

    number: int
    point: Point


class Study:
    """The points of one search. One process at a time may use it."""

    def __init__(self, file: Path, axes: Sequence[Axis], seed: int, points: int, *, write: bool = True) -> None:
        """`points`: how many there will be. Without `write`, points and results are not stored."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._axes, self._seed = axes, seed
        self._random = min(-(-points // RANDOM_SHARE), MOST_RANDOM)
        self._distributions = {axis.name: _distribution(axis) for axis in axes}
        storage = optuna.storages.JournalStorage(_Lines(file, write=write))
        self._study = optuna.create_study(storage=storage, study_name=STUDY, load_if_exists=True)
        for one in self._trials(TrialState.RUNNING):
            if not self._is_complete(one):  # it was half drawn when the process was killed
                self._study.tell(one.number, state=TrialState.FAIL)

    def ask(self, *, at_random: bool = False) -> DrawnPoint:
        """Draw a point: for the same earlier points and results the same one, whether or not the search was
        interrupted."""
        number = len(self._trials())
        digest = hashlib.sha256(f"{self._seed}/{number}".encode()).digest()
        seed = int.from_bytes(digest[:4], "big")
        samplers = optuna.samplers
        tpe = samplers.TPESampler(n_startup_trials=self._random, seed=seed)
        self._study.sampler = samplers.RandomSampler(seed=seed) if at_random else tpe
        trial = self._study.ask(self._distributions)
        return DrawnPoint(trial.number, self._point(trial.params))

    def open(self) -> list[DrawnPoint]:
        """The points that were drawn, and whose results are not known yet."""
        return [DrawnPoint(one.number, self._point(one.params)) for one in self._trials(TrialState.RUNNING)]

    def results(self) -> dict[Point, float | None]:
        """What the points whose runs have ended reached, the smaller, the better: infinite for one that has diverged,
        None for one that failed."""
        found: dict[Point, float | None] = {}
        for one in self._trials(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL):
            if self._is_complete(one) and not _is_forbidden(one) and REPEATS not in one.user_attrs:
                point = self._point(one.params)
                loss = math.inf if one.state is TrialState.PRUNED else one.value
                found[point] = found.get(point) if loss is None else loss
        return found

    def forbidden(self) -> set[Point]:
        return {self._point(one.params) for one in self._trials(TrialState.PRUNED) if _is_forbidden(one)}

    def tell(self, drawn: DrawnPoint, loss: float | None) -> None:
        """Give the result of a point, in the form of `results`. A failed point says nothing about similar ones; a
        diverged one does."""
        if loss is None:
            self._study.tell(drawn.number, state=TrialState.FAIL)
        elif math.isinf(loss):
            self._study.tell(drawn.number, state=TrialState.PRUNED)
        else:
            self._study.tell(drawn.number, loss)

    def forget(self, drawn: DrawnPoint) -> None:
        """Drop a point that was drawn before."""
        self._trial(drawn).set_user_attr(REPEATS, True)
        self._study.tell(drawn.number, state=TrialState.FAIL)

    def forbid(self, drawn: DrawnPoint) -> None:
        """Say that a point may not be run, so that others like it are avoided."""
        self._trial(drawn).set_constraint(FORBIDDEN, 1.0)
        self._study.tell(drawn.number, state=TrialState.PRUNED)

    def _trial(self, drawn: DrawnPoint) -> Trial:
        known = next(one for one in self._trials(TrialState.RUNNING) if one.number == drawn.number)
        return Trial(self._study, known._trial_id)

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=states or None)

    def _is_complete(self, trial: FrozenTrial) -> bool:
        return trial.params.keys() == self._distributions.keys()

    def _point(self, params: Mapping[str, Any]) -> Point:
        return tuple(_value(axis, params[axis.name]) for axis in self._axes)


class _Lines(BaseJournalBackend):
    """Optuna's journal as a file of lines. It needs no lock: the search has one, which ends with its process."""

    def __init__(self, file: Path, *, write: bool) -> None:
        self._file = file
        self._write = write
        self._lines = read_lines(file)

    def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:
        return self._lines[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        for line in logs:
            if self._write:
                append_line(self._file, line)
            self._lines.append(line)


def _is_forbidden(trial: FrozenTrial) -> bool:
    return FORBIDDEN in trial.constraints


def _distribution(axis: Axis) -> BaseDistribution:
    if (interval := axis.interval) is not None:
        if interval.integer:
            return IntDistribution(round(interval.low), round(interval.high), log=interval.log)
        return FloatDistribution(interval.low, interval.high, log=interval.log)
    if axis.order:
        return IntDistribution(0, len(axis.options) - 1)  # places in the list, since neighbours are about equally good
    return CategoricalDistribution([_label(one) for one in axis.options])


def _value(axis: Axis, drawn: Any) -> Value:
    if axis.interval is not None:
        return (axis.interval.text(float(drawn)),)
    if isinstance(drawn, str):
        return next(one for one in axis.options if _label(one) == drawn)
    return ordered(axis)[drawn]


def _label(value: Value) -> str:
    return " ".join(value)
