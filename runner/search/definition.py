"""What a search is: its axes, its method and its sweep, the same for the same command line."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace

from modal_app.store.flock import try_lock
from modal_app.store.layout import Store
from runner.composing.searched import SearchInput
from runner.errors import SweepError
from runner.executors.choose import pools_of
from runner.launch.plan import sweep_id
from runner.launch.types import Launch
from runner.request import Request, SearchMethod
from runner.search.methods import Coordinate, Method, Tpe
from runner.search.metric import refuse_unmeasured
from runner.search.points import Points

TRIALS = "trials.jsonl"
"""The file of search=tpe in the sweep's folder."""


@dataclass(frozen=True, slots=True)
class Definition:
    points: Points
    request: Request
    """With the sweep's id."""
    store: Store
    at_a_time: int | None
    """Runs; None without a limit."""

    @property
    def sweep(self) -> str:
        assert self.request.sweep is not None
        return self.request.sweep

    def method(self, *, write: bool) -> Method:
        """Without any results yet, except those that search=tpe finds in its file. Without `write`, that file is not
        changed."""
        search = self.request.search
        if search.method is SearchMethod.COORDINATE:
            return Coordinate(self.points)
        assert search.runs is not None
        most = self.at_a_time or search.runs
        return Tpe(self.points, self.store.sweeps / self.sweep / TRIALS, search.runs, most, write=write)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Raises SweepError while another process draws points of the search: each would draw its own."""
        if self.request.search.method is not SearchMethod.TPE:
            yield
            return
        file = self.store.sweeps / self.sweep / TRIALS
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("ab") as stream:
            if not try_lock(stream.fileno()):
                raise SweepError(
                    f"Another process runs the search {self.sweep}. Wait until it has ended, or stop it with Ctrl-C."
                )
            yield


def define(searched: SearchInput, request: Request) -> Definition:
    """Raises SweepError for axes and values that cannot be searched, and for another search than is expected."""
    points = Points(searched, request)
    refuse_unmeasured(request.search.metric, points.probed.experiments)
    if (runs := request.search.runs) is not None and runs < points.seeds:
        raise SweepError(
            f"search.runs={runs} is not enough for one point: each has {points.seeds} runs, one for each seed."
        )
    named = replace(request, sweep=sweep_id(request.name, _described(points, request)))
    if request.sweep not in (None, named.sweep):
        raise SweepError(
            f"The command line of {request.sweep} now gives another search ({named.sweep}): its config files, its "
            "data, the trainer or the current folder has changed. Change that back, and continue in the folder "
            "where it was launched."
        )
    points.request = replace(points.request, sweep=named.sweep)
    return Definition(points, named, points.probed.store, _at_a_time(points.probed))


def _described(points: Points, request: Request) -> list[str]:
    """What the search's id is a hash of. The keys of the probed runs stand for all that the axes do not vary."""
    search = request.search
    seed = search.seed if search.method is SearchMethod.TPE else None
    axes = [[axis.keys, axis.options, axis.interval and repr(axis.interval)] for axis in points.axes]
    chosen = json.dumps([search.method, search.metric, search.maximize, seed, axes, points.seed_texts, points.excludes])
    return [chosen, *(run.key for run in points.probed.runs)]


def _at_a_time(launch: Launch) -> int | None:
    """How many of the search's runs are run at a time; None without a limit."""
    begun = replace(launch.plan, runs=tuple(replace(one, done=False) for one in launch.plan.runs))
    most = [pool.most for pool in pools_of(launch.executor, begun).values() if pool.most is not None]
    return min(most, default=None)
