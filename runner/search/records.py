"""What a search's sweep has recorded: which runs of a round are finished, and what they reached and cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from runner.launch.budget import over_budget
from runner.launch.execute import record_request
from runner.launch.price import price
from runner.launch.types import Launch
from runner.search.definition import Definition
from runner.search.methods import Losses
from runner.search.points import Setting
from runner.search.results import Results, read_results
from runner.store.search_note import SearchNote
from runner.types import Experiment


class Records:
    def __init__(self, definition: Definition) -> None:
        self._definition = definition
        self._maximize = False

    def of(self, settings: Sequence[Setting]) -> RoundRuns:
        """The runs of a round as they are now."""
        experiments = [one for setting in settings for one in setting.experiments]
        launch = self._definition.points.planned(experiments)
        search = self._definition.request.search
        results = read_results(self._definition.store, self._definition.sweep, search.metric, maximize=search.maximize)
        self._maximize = results.metric.maximize
        return RoundRuns(tuple(settings), launch, results)

    def note(self, *, over: bool) -> None:
        method = self._definition.request.search.method
        SearchNote(method, over).save(self._definition.store, self._definition.sweep)

    def as_logged(self, loss: float) -> float:
        """The value of the metric."""
        return -loss if self._maximize else loss


@dataclass(frozen=True, slots=True)
class RoundRuns:
    settings: tuple[Setting, ...]
    launch: Launch
    """Planned, of all experiments of the settings, in order."""
    results: Results

    def losses(self, *, failures_count: bool = False) -> Losses:
        """The losses of the settings whose runs have all succeeded or diverged; with `failures_count`, also of those
        with runs that failed otherwise, which may succeed when they are run again."""
        found = {}
        for setting, keys in self._keys().items():
            unknown = self.results.unfinished(keys) if failures_count else self.results.to_repeat(keys)
            if not unknown:
                found[setting] = self.results.loss(keys)
        return found

    def unfinished(self) -> list[str]:
        return self.results.unfinished([run.key for run in self.launch.runs])

    def to_launch(self) -> list[Experiment]:
        """All but those that would only diverge again."""
        runs = zip(self.launch.experiments, self.launch.runs, strict=True)
        return [experiment for experiment, run in runs if not self.results.diverged(run.key)]

    def record(self) -> None:
        """As runs of the search, for runs that another sweep has trained."""
        if any(run.key not in self.results.rows for run in self.launch.runs):
            record_request(self.launch)

    def refuse_other_rows(self) -> None:
        self.results.refuse_other_rows()

    def dollars_left(self, budget: float) -> float:
        """The dollars left for this round: a launch counts what its unfinished runs have cost before."""
        begun = {one.run.key for one in self.launch.plan.pending}
        return budget - sum(dollars for key, dollars in self.results.dollars.items() if key not in begun)

    def is_over(self, budget: float, *, is_first: bool) -> bool:
        """Whether the round may cost more than what is left. `is_first`: the launch itself compares the whole."""
        left = self.dollars_left(budget)
        if left <= 0 or is_first:
            return left <= 0
        priced = price(self.launch)
        assert priced.cost is not None
        return bool(over_budget(priced.cost, replace(priced.request, budget=left)))

    def _keys(self) -> dict[tuple[tuple[str, ...], ...], list[str]]:
        """The run keys of each setting, in the order of its experiments."""
        keys = iter([run.key for run in self.launch.runs])
        return {one.point: [next(keys) for _ in one.experiments] for one in self.settings}
