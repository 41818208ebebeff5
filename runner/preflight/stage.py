"""The preflight of one sweep: what is known at once, then Axolotl's own verdict; refused together, or let through."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console

from runner.console import terminal
from runner.environment.verdicts import SchemaQuestion, Verdicts
from runner.errors import SweepError
from runner.memory.estimate import Estimate
from runner.preflight import quick_findings
from runner.preflight.findings import Finding, FindingOfRuns, as_json, blocking, lines, together
from runner.preflight.memory import memory_findings, memory_json, memory_lines, memory_of
from runner.preflight.schema import Validator, ask, questions_of, schema_findings, unasked
from runner.types import Experiment


@dataclass(slots=True)
class Preflight:
    """`verdicts` remembers what Axolotl has said; `force` launches in spite of what --force may overrule."""

    experiments: Sequence[Experiment]
    verdicts: Verdicts
    force: bool = False
    longest_rows: Sequence[int | None] = ()
    """Tokens of the longest row of each run's dataset, where it is prepared; empty until that is known."""
    finished: frozenset[int] = frozenset()
    """Numbers of the runs that need no memory any more; known with `longest_rows`."""
    _quick: list[tuple[Finding, ...]] = field(default_factory=list)
    _questions: dict[int, tuple[Experiment, Sequence[SchemaQuestion]]] = field(default_factory=dict)
    """By the experiment's id, which is its own as long as it is kept beside them."""
    _answers: int = 0
    """How often Axolotl was asked."""
    _told: tuple[Any, list[FindingOfRuns]] | None = None
    """The last list, and what it was made of."""

    def __post_init__(self) -> None:
        self._quick = [quick_findings(experiment) for experiment in self.experiments]

    @property
    def blocked(self) -> bool:
        """Whether what is known by now keeps the sweep from starting."""
        return bool(blocking(self.told(), force=self.force))

    def told(self) -> list[FindingOfRuns]:
        """All that is known by now."""
        known = (self._answers, tuple(self.longest_rows), self.finished)
        if self._told is None or self._told[0] != known:
            self._told = known, self._all()
        return self._told[1]

    def _all(self) -> list[FindingOfRuns]:
        found = [
            (*quick, *schema_findings(experiment, self._asked_of(experiment), self.verdicts, quick))
            for experiment, quick in zip(self.experiments, self._quick, strict=True)
        ]
        for number, (experiment, longest) in enumerate(zip(self.experiments, self.longest_rows, strict=False)):
            if number not in self.finished:
                found[number] = (*found[number], *memory_findings(experiment, longest))
        return together(found)

    def unasked(self, wanted: Sequence[Experiment]) -> bool:
        """Whether Axolotl has yet to be asked about any of these."""
        return bool(unasked(self._asked_of_all(wanted), self.verdicts))

    def ask(self, validator: Validator, wanted: Sequence[Experiment]) -> None:
        """Ask Axolotl what it has not been asked yet."""
        if questions := unasked(self._asked_of_all(wanted), self.verdicts):
            ask(questions, self.verdicts, validator)
            self._answers += 1

    def _asked_of(self, experiment: Experiment) -> Sequence[SchemaQuestion]:
        if id(experiment) not in self._questions:
            self._questions[id(experiment)] = experiment, questions_of(experiment)
        return self._questions[id(experiment)][1]

    def _asked_of_all(self, experiments: Sequence[Experiment]) -> Iterator[SchemaQuestion]:
        return (question for experiment in experiments for question in self._asked_of(experiment))

    def refuse(self, console: Console, validator: Callable[[], Validator | None]) -> None:
        """Tell what is known at once, at once; then what Axolotl itself has against the runs; and raise SweepError.

        `validator` is made only when Axolotl has yet to be asked.
        """
        first = blocking(self.told(), force=self.force)
        if not self.unasked(self.experiments) or (asked := validator()) is None:
            self.show_rest(console)
            raise SweepError(self._refusal(first))
        terminal.say(console, f"axosweep: {self._refusal(first)}")
        imports = "" if asked.is_up else "; its imports take some seconds"
        console.print(f"Asking Axolotl's own schema for the rest{imports}.")
        self.ask(asked, self.experiments)
        self.show_rest(console)
        more = [one for one in blocking(self.told(), force=self.force) if one not in first]
        raise SweepError(self._refusal(more, more=True) if more else "Axolotl's own schema adds nothing to that.")

    def refuse_blocked(self) -> None:
        """Raise SweepError with all that keeps the sweep from starting, if anything does."""
        if stops := blocking(self.told(), force=self.force):
            raise SweepError(self._refusal(stops))

    def show_rest(self, console: Console) -> None:
        """What is told and does not keep the sweep from starting."""
        told = self.told()
        stops = blocking(told, force=self.force)
        for line in self._lines([one for one in told if one not in stops]):
            terminal.say(console, line.replace("- ", "note: ", 1), style="yellow")

    def as_json(self, *, schema_asked: bool) -> Mapping[str, Any]:
        """The findings name runs by their numbers; `memory` has a list for each run, one entry for each card, and
        `chosen` why gpu=auto took those.
        """
        return {
            "schema_asked": schema_asked,
            "findings": as_json(self.told()),
            "memory": [memory_json(one) for one in self._memory()],
            "chosen": [experiment.chosen for experiment in self.experiments],
        }

    def memory_lines(self) -> list[str]:
        """Whether each run fits its GPUs, and why gpu=auto took them, for people; once `longest_rows` are known."""
        reasons = dict.fromkeys(experiment.chosen for experiment in self.experiments if experiment.chosen)
        return [*reasons, *memory_lines(self._memory(), self._names())]

    def _memory(self) -> list[tuple[Estimate, ...]]:
        return [
            () if number in self.finished else memory_of(experiment, longest)
            for number, (experiment, longest) in enumerate(zip(self.experiments, self.longest_rows, strict=True))
        ]

    def _refusal(self, stops: Sequence[FindingOfRuns], *, more: bool = False) -> str:
        told = self._lines(stops)
        forceable = any(one.finding.severity == "gate" for one in stops)
        way_out = ["--force launches in spite of what only wastes."] if forceable else []
        if len(self.experiments) == 1:
            beginning = "Axolotl's own schema adds:" if more else "This cannot start:"
        else:
            failing = len({run for one in stops for run in one.runs})
            beginning = f"{failing} of {len(self.experiments)} runs cannot start, so none was started."
        return "\n".join([beginning, *told, *way_out])

    def _lines(self, told: Sequence[FindingOfRuns]) -> list[str]:
        return lines(told, self._names())

    def _names(self) -> list[str]:
        return [" ".join(experiment.overrides) or "the defaults" for experiment in self.experiments]
