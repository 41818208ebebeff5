"""Points of a search -> experiments, one for each seed; and which of them may not be run, and why."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from runner.composing.axes import Axis as RequestedAxis
from runner.composing.axes import ChoiceAxis, IntervalAxis, Job, SearchSpace
from runner.composing.searched import SearchInput
from runner.errors import SweepError
from runner.launch.identify import identify, resolve
from runner.launch.plan import plan
from runner.launch.types import Launch
from runner.memory.estimate import Verdict
from runner.preflight.findings import blocking
from runner.preflight.memory import memory_of
from runner.request import Action, Request
from runner.search.space import Axis, Interval, Point, Value, number
from runner.types import Experiment

SEED = "seed"
RANK_KEY = "lora_r"


@dataclass(frozen=True, slots=True)
class Setting:
    """A point with its experiments."""

    point: Point
    experiments: tuple[Experiment, ...] = ()
    """One for each seed; none for a point that may not be run."""
    refusal: str = ""
    """Why it may not be run."""


class RefusedValues(SweepError):
    """Values of axes that preflight refuses."""

    def __init__(self, experiments: Sequence[Experiment], refusal: str) -> None:
        super().__init__(refusal)
        self.experiments = tuple(experiments)
        """With each value of each axis."""


class Points:
    """The points of a search, composed and checked."""

    def __init__(self, searched: SearchInput, request: Request) -> None:
        """Raises SweepError if values of the axes cannot be composed, and RefusedValues if preflight refuses them."""
        self.request = replace(request, action=Action.PLAN)
        self._searched = searched
        self._seeds = _seeds_of(searched.space)
        dimensions = [group for group in searched.space.dimensions if group != (self._seeds,)]
        if not dimensions:
            raise SweepError("A search needs axes: seed alone says how often each setting is run, not what to vary.")
        self._known: dict[Point, Setting] = {}
        self.axes = tuple(_axis(group) for group in dimensions)
        self.probed = self._probe()
        """A plan of each value of each axis, the others at their first. Its runs identify what is searched."""

    @property
    def seed_texts(self) -> tuple[str, ...]:
        return self._seeds.texts if self._seeds else ()

    @property
    def seeds(self) -> int:
        """How many runs a point has."""
        return len(self.seed_texts) or 1

    @property
    def excludes(self) -> list[str]:
        return [one.text for one in self._searched.space.excludes]

    def experiments(self, points: Sequence[Point]) -> list[Experiment]:
        """The experiments of those points that can be composed and are not excluded."""
        return [one for setting in self._composed(points) for one in setting.experiments]

    def screened(self, points: Sequence[Point]) -> list[Setting]:
        """Each point with its experiments, or with the reason why it may not be run: it is excluded, it cannot be
        composed, or preflight refuses it, such as for memory."""
        found = self._composed(points)
        several = [(place, one) for place, setting in enumerate(found) for one in setting.experiments]
        refusals = self._refusals([one for _, one in several])
        for (place, _), text in zip(several, refusals, strict=True):
            if text and not found[place].refusal:
                found[place] = Setting(found[place].point, (), text)
        return found

    def planned(self, experiments: Sequence[Experiment]) -> Launch:
        """What these would run. Raises SweepError for what cannot be planned."""
        return plan(identify(resolve(experiments, self.request)))

    def _probe(self) -> Launch:
        """Check each value of each axis, and find out which options set a rank."""
        base = tuple(_ends(axis)[0] for axis in self.axes)
        lines = [[(*base[:place], value, *base[place + 1 :]) for value in _ends(axis)]
                 for place, axis in enumerate(self.axes)]  # fmt: skip
        distinct = list(dict.fromkeys(itertools.chain.from_iterable(lines)))
        jobs = [self._job(point, next(iter(self.seed_texts), None)) for point in distinct]
        experiments = dict(zip(distinct, self._searched.compose(jobs), strict=True))
        self.axes = tuple(
            _with_ranks(axis, {point[place]: experiments[point] for point in line})
            for place, (axis, line) in enumerate(zip(self.axes, lines, strict=True))
        )
        wanted = [one for point, one in experiments.items() if not self._excluded(point)]
        if not wanted:
            raise SweepError("--exclude leaves out every value of an axis, so nothing is left to search.")
        return self._checked(wanted)

    def _checked(self, experiments: Sequence[Experiment]) -> Launch:
        """Raises RefusedValues, but not for too little memory: such points are left out later."""
        launch = resolve(experiments, self.request)
        if refusal := launch.preflight.refusal():
            raise RefusedValues(experiments, refusal)
        launch = plan(identify(launch))
        sizes = launch.preflight.prepared
        fit = [one for one, size in zip(experiments, sizes, strict=True) if _may_fit(one, size.longest_row)]
        checked = launch if len(fit) in (0, len(experiments)) else self.planned(fit)
        if refusal := checked.preflight.refusal():
            raise RefusedValues(experiments, refusal)
        return launch

    def _composed(self, points: Sequence[Point]) -> list[Setting]:
        """Each composed once; only if one of several cannot be, all of them are tried again one by one."""
        new = [point for point in dict.fromkeys(points) if point not in self._known]
        jobs = {point: self._jobs(point) for point in new}
        try:
            experiments = iter(self._searched.compose([job for several in jobs.values() for job in several]))
        except SweepError as error:
            if len(new) > 1:
                return [one for point in points for one in self._composed([point])]
            self._known[new[0]] = Setting(new[0], (), str(error))
        else:
            for point, several in jobs.items():
                composed = tuple(next(experiments) for _ in several)
                self._known[point] = Setting(
                    point, composed, "" if several else self._excluded(point, next(iter(self.seed_texts), None))
                )
        return [self._known[point] for point in points]

    def _jobs(self, point: Point) -> list[Job]:
        """One for each seed, without those that are excluded."""
        return [self._job(point, text) for text in self.seed_texts or (None,) if not self._excluded(point, text)]

    def _refusals(self, experiments: Sequence[Experiment]) -> list[str]:
        """Why preflight refuses each of them; empty for one that it does not."""
        if not experiments:
            return []
        launch = resolve(experiments, self.request)
        found = _blocked(launch)
        rest = [place for place, text in enumerate(found) if not text]
        if rest:
            if len(rest) < len(found):
                launch = resolve([experiments[place] for place in rest], self.request)
            for place, text in zip(rest, _blocked(plan(identify(launch))), strict=True):
                found[place] = text
        return found

    def _job(self, point: Point, seed: str | None) -> Job:
        texts = {name: text for axis, value in zip(self.axes, point, strict=True)
                 for name, text in zip(axis.keys, value, strict=True)}  # fmt: skip
        if self._seeds and seed is not None:
            texts[self._seeds.name] = seed
        space = self._searched.space
        return space.job_of({axis.name: f"{axis.head}={texts[axis.name]}" for axis in space.axes})

    def _excluded(self, point: Point, seed: str | None = None) -> str:
        space = self._searched.space
        known = {axis.name: axis for axis in space.axes}
        values = {name: _plain(known[name], text) for axis, value in zip(self.axes, point, strict=True)
                  for name, text in zip(axis.keys, value, strict=True)}  # fmt: skip
        if self._seeds and seed is not None:
            values[self._seeds.name] = _plain(self._seeds, seed)
        return next((f"--exclude '{one.text}'" for one in space.excluding(values)), "")


def _seeds_of(space: SearchSpace) -> ChoiceAxis | None:
    """The axis that says how often each setting is run. Raises SweepError if others move with it: no seed is better
    than another."""
    for zipped in space.zips:
        if SEED in zipped:
            others = ", ".join(name for name in zipped if name != SEED)
            raise SweepError(
                f"--zip {','.join(zipped)}: a search runs each setting with every seed, and cannot choose among "
                f"seeds that move with another axis. Give {others} one value, or use search=grid or search=random."
            )
    if any(isinstance(one, IntervalAxis) and one.name == SEED for one in space.axes):
        raise SweepError(
            "seed is an interval, but a search runs each setting with every seed. Write a list: seed=1,2,3."
        )
    alone = (group[0] for group in space.dimensions if len(group) == 1 and group[0].name == SEED)
    return next((one for one in alone if isinstance(one, ChoiceAxis)), None)


def _axis(group: Sequence[RequestedAxis]) -> Axis:
    names = tuple(one.name for one in group)
    if isinstance(one := group[0], IntervalAxis):
        return Axis(names, interval=Interval(one.low, one.high, one.log, one.integer))
    columns = [one.texts for one in group if isinstance(one, ChoiceAxis)]
    return Axis(names, tuple(dict.fromkeys(zip(*columns, strict=True))))


def _ends(axis: Axis) -> tuple[Value, ...]:
    """All options, or both ends."""
    if axis.interval is None:
        return axis.options
    return tuple((axis.interval.text(end),) for end in (axis.interval.low, axis.interval.high))


def _with_ranks(axis: Axis, experiments: dict[Value, Experiment]) -> Axis:
    ranks = {value: one.axolotl.get(RANK_KEY) for value, one in experiments.items()}
    known = {value: float(rank) for value, rank in ranks.items() if isinstance(rank, int)}
    varies = axis.interval is None and len(known) == len(ranks) and len(set(known.values())) > 1
    return replace(axis, ranks=known) if varies else axis


def _plain(axis: RequestedAxis, text: str) -> Any:
    """The value of an axis that a text means."""
    if isinstance(axis, ChoiceAxis) and text in axis.texts:
        return axis.values[axis.texts.index(text)]
    value = number(text)
    return text if value is None else int(value) if value.is_integer() and "." not in text else value


def _may_fit(experiment: Experiment, longest_row: int | None) -> bool:
    return all(one.verdict is not Verdict.WONT_FIT for one in memory_of(experiment, longest_row))


def _blocked(launch: Launch) -> list[str]:
    """Why preflight refuses each experiment, as far as it is known; empty for one that it does not refuse."""
    texts = [""] * len(launch.experiments)
    for one in blocking(launch.preflight.findings(), force=launch.request.force):
        for run in one.runs:
            texts[run] = texts[run] or one.finding.text
    return texts
