"""The preflight of one sweep: quick findings, then Axolotl's own verdict. The sweep is refused or accepted as one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console

from modal_app.store.facts import DataManifest
from runner.console import terminal
from runner.environment.verdicts import SchemaQuestion, Verdicts
from runner.errors import SweepError
from runner.memory.estimate import Estimate
from runner.memory.measured import NOTHING_KNOWN, KnownMemory
from runner.preflight import config_findings, run_findings
from runner.preflight.findings import (
    Finding,
    FindingOfRuns,
    PrintedFinding,
    blocking,
    lines,
    printed_findings,
    together,
)
from runner.preflight.memory import (
    PrintedMemory,
    memory_findings,
    memory_lines,
    memory_of,
    printed_memory,
    tries_that_fail,
)
from runner.preflight.rules.run_facts import RunFacts
from runner.preflight.schema import Validator, ask, questions_of, schema_findings, unanswered
from runner.types import Experiment


@dataclass(frozen=True, slots=True)
class PrintedPreflight:
    """The preflight in the output of `plan --json`. It names runs by their numbers."""

    schema_asked: bool
    """Whether Axolotl's own schema has checked the runs."""
    findings: tuple[PrintedFinding, ...]
    memory: tuple[tuple[PrintedMemory, ...], ...]
    """A list for each run, with one entry for each kind of card; empty for runs that are refused before their datasets
    are known."""
    chosen: tuple[str, ...]
    """For each run, the reason of gpu=auto."""


@dataclass(slots=True)
class Preflight:
    """`verdicts` remembers Axolotl's verdicts; with `force`, gates do not block the launch."""

    experiments: Sequence[Experiment]
    verdicts: Verdicts
    force: bool = False
    prepared: Sequence[DataManifest] = ()
    """What is known of each run's dataset; empty until it is known which datasets are prepared."""
    known: Sequence[KnownMemory] = ()
    """What earlier runs of each run's model have shown of its memory; read together with `prepared`."""
    finished: frozenset[int] = frozenset()
    """Numbers of the finished runs, which need no memory; known together with `prepared`."""
    planned: Sequence[Sequence[Finding]] = ()
    """What is wrong with each run's place in the plan, such as its container's disk; empty until the plan is priced."""
    _wrong: list[tuple[Finding, ...]] = field(default_factory=list)
    """What is wrong with each run's values."""
    _questions: dict[int, tuple[Experiment, Sequence[SchemaQuestion]]] = field(default_factory=dict)
    """By the experiment's id, which stays unique since the value refers to the experiment."""
    _by_rules: dict[int, tuple[DataManifest, tuple[Finding, ...]]] = field(default_factory=dict)
    """What the rules have found in each run, and what was known of its dataset then."""
    _answers: int = 0
    """How often Axolotl's schema was used."""
    _cached: tuple[Any, list[FindingOfRuns]] | None = None
    """The last list of findings, and what it was computed from."""

    def __post_init__(self) -> None:
        optimizers = {str(one.replaced_optimizer or one.axolotl.get("optimizer")) for one in self.experiments}
        swept = len(optimizers) > 1
        self._wrong = [config_findings(experiment, optimizer_swept=swept) for experiment in self.experiments]

    @property
    def blocked(self) -> bool:
        """Whether the findings so far prevent the sweep from starting."""
        return bool(blocking(self.findings(), force=self.force))

    def findings(self) -> list[FindingOfRuns]:
        """All findings so far."""
        known = (self._answers, tuple(map(id, self.prepared)), self.finished, self.planned)
        if self._cached is None or self._cached[0] != known:
            self._cached = known, self._all()
        return self._cached[1]

    def _all(self) -> list[FindingOfRuns]:
        found = []
        known = self.prepared or [DataManifest()] * len(self.experiments)
        for number, (experiment, wrong, manifest) in enumerate(zip(self.experiments, self._wrong, known, strict=True)):
            own = (*wrong, *self._ruled(number, RunFacts(experiment, manifest), wrong))
            own += tuple(schema_findings(experiment, self._questions_of(experiment), self.verdicts, own))
            if self.prepared and number not in self.finished:
                own += tuple(memory_findings(experiment, manifest.longest_row, self._known(number)))
            found.append((*own, *(self.planned[number] if self.planned else ())))
        return together(found)

    def _ruled(self, number: int, run: RunFacts, wrong: tuple[Finding, ...]) -> tuple[Finding, ...]:
        """What the rules find. They take half of a plan's time, and are checked again when its datasets are known."""
        known = self._by_rules.get(number)
        if known is None or known[0] != run.prepared:
            known = self._by_rules[number] = run.prepared, tuple(run_findings(run, wrong))
        return known[1]

    def unanswered(self, wanted: Sequence[Experiment]) -> bool:
        """Whether Axolotl's verdict on any of these is missing."""
        return bool(unanswered(self._questions_of_all(wanted), self.verdicts))

    def ask(self, validator: Validator, wanted: Sequence[Experiment]) -> None:
        """Ask Axolotl for the missing verdicts."""
        if questions := unanswered(self._questions_of_all(wanted), self.verdicts):
            ask(questions, self.verdicts, validator)
            self._answers += 1

    def _questions_of(self, experiment: Experiment) -> Sequence[SchemaQuestion]:
        if id(experiment) not in self._questions:
            self._questions[id(experiment)] = experiment, questions_of(experiment)
        return self._questions[id(experiment)][1]

    def _questions_of_all(self, experiments: Sequence[Experiment]) -> Iterator[SchemaQuestion]:
        return (question for experiment in experiments for question in self._questions_of(experiment))

    def refuse(self, console: Console, validator: Callable[[], Validator | None]) -> None:
        """Print the findings so far at once, then Axolotl's own verdict, and raise SweepError.

        `validator` is called only if a verdict is missing. The error has no text if Axolotl adds nothing.
        """
        first = blocking(self.findings(), force=self.force)
        if not self.unanswered(self.experiments) or (process := validator()) is None:
            self.show_rest(console)
            raise SweepError(self._refusal(first))
        terminal.say(console, f"axosweep: {self._refusal(first)}")
        imports = "" if process.is_up else "; its imports take a few seconds"
        checking = f"Checking the runs against Axolotl's own schema{imports}."
        if console.is_terminal:
            with console.status(checking):  # gone once it is over: often there is nothing to add
                self.ask(process, self.experiments)
        else:
            console.print(checking)
            self.ask(process, self.experiments)
        self.show_rest(console)
        more = [one for one in blocking(self.findings(), force=self.force) if one not in first]
        raise SweepError(self._refusal(more, more=True) if more else "")

    def refuse_blocked(self) -> None:
        """Raise SweepError with the findings that prevent the sweep from starting, if there are any."""
        if refusal := self.refusal():
            raise SweepError(refusal)

    def refusal(self) -> str:
        """The findings that prevent the sweep from starting, for people; empty if there are none."""
        stops = blocking(self.findings(), force=self.force)
        return self._refusal(stops) if stops else ""

    def show_rest(self, console: Console) -> None:
        """Print the findings that do not prevent the sweep from starting."""
        findings = self.findings()
        stops = blocking(findings, force=self.force)
        for line in self._lines([one for one in findings if one not in stops]):
            terminal.say(console, line.replace("- ", "note: ", 1), style="yellow")

    def printed(self, *, schema_asked: bool) -> PrintedPreflight:
        return PrintedPreflight(
            schema_asked=schema_asked,
            findings=printed_findings(self.findings()),
            memory=tuple(printed_memory(one) for one in self._memory()),
            chosen=tuple(experiment.chosen for experiment in self.experiments),
        )

    def memory_lines(self) -> list[str]:
        """Whether each run fits its GPUs, and why gpu=auto chose them, for people. Needs `prepared`."""
        reasons = dict.fromkeys(experiment.chosen for experiment in self.experiments if experiment.chosen)
        return [*reasons, *memory_lines(self._memory(), self._names())]

    def tries_that_fail(self) -> list[int]:
        """For each run, how many tries of on_oom=halve are expected to fail. Empty without `prepared`."""
        known = enumerate(zip(self.experiments, self.prepared, strict=True)) if self.prepared else ()
        return [
            0 if number in self.finished else tries_that_fail(one, manifest.longest_row, self._known(number))
            for number, (one, manifest) in known
        ]

    def host_bytes(self) -> list[int]:
        """For each run, how much of the machine's memory it needs for offloading. Empty without `prepared`."""
        return [max((one.host for one in estimates), default=0) for estimates in self._memory()]

    def _memory(self) -> list[tuple[Estimate, ...]]:
        if not self.prepared:
            return []
        return [
            () if number in self.finished else memory_of(experiment, manifest.longest_row, self._known(number))
            for number, (experiment, manifest) in enumerate(zip(self.experiments, self.prepared, strict=True))
        ]

    def _known(self, number: int) -> KnownMemory:
        return self.known[number] if self.known else NOTHING_KNOWN

    def _refusal(self, stops: Sequence[FindingOfRuns], *, more: bool = False) -> str:
        forceable = any(one.finding.severity == "gate" for one in stops)
        way_out = ["--force launches runs that will probably, but not certainly, fail."] if forceable else []
        if more:
            beginning = "Axolotl's own schema adds:"
        elif len(self.experiments) == 1:
            beginning = "This run cannot start:"
        else:
            failing = len({run for one in stops for run in one.runs})
            beginning = f"{failing} of {len(self.experiments)} runs cannot start, so none was started."
        return "\n".join([beginning, *self._lines(stops), *way_out])

    def _lines(self, findings: Sequence[FindingOfRuns]) -> list[str]:
        return lines(findings, self._names())

    def _names(self) -> list[str]:
        return [" ".join(experiment.overrides) or "the defaults" for experiment in self.experiments]
