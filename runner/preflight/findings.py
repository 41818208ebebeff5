"""A finding: one thing about a run that a person should know before it starts. Told once for all runs that have it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from modal_app.store.problem import Problem


class Severity(StrEnum):
    ERROR = "error"
    """It cannot work: never launched."""
    GATE = "gate"
    """It would most likely be a waste: launched with --force only."""
    WARNING = "warning"
    """Told, and launched."""


@dataclass(frozen=True, slots=True)
class Finding:
    severity: Severity
    key: str
    """In the words of the command line: `learning_rate`, `datasets.0.path`, `gpu.count`."""
    seen: str
    """The value as it would be written, or what it is in parentheses: `(a secret)`. Empty when `expected` says it."""
    expected: str
    way_out: str = ""
    source: str = ""
    """Where this is documented: a URL."""

    @property
    def text(self) -> str:
        """key=what was seen: what was expected. The way out.

        >>> error("lora_dropout", 3.0, "expected at least 0 and below 1", "Write lora_dropout=0.05.").text
        'lora_dropout=3.0: expected at least 0 and below 1. Write lora_dropout=0.05.'
        """
        expected = self.expected if self.expected.endswith((".", "?")) else f"{self.expected}."
        parts = [f"{self._beginning}{expected}", self.way_out, self.source]
        return " ".join(part for part in parts if part)

    @property
    def _beginning(self) -> str:
        if not self.seen:
            return ""  # the sentence has it
        return f"{self.key}{' ' if self.seen.startswith('(') else '='}{self.seen}: "


def error(key: str, seen: Any, expected: str, way_out: str = "", source: str = "") -> Finding:
    return Finding(Severity.ERROR, key, shown(seen), expected, way_out, source)


def gate(key: str, seen: Any, expected: str, way_out: str = "", source: str = "") -> Finding:
    return Finding(Severity.GATE, key, shown(seen), expected, way_out, source)


def warning(key: str, seen: Any, expected: str, way_out: str = "", source: str = "") -> Finding:
    return Finding(Severity.WARNING, key, shown(seen), expected, way_out, source)


def shown(value: Any) -> str:
    """A config's value as one would write it on the command line."""
    match value:
        case bool():
            return str(value).lower()
        case None:
            return "null"
        case "":
            return "''"  # or nobody would see that there is one
        case Mapping():
            return "{" + ", ".join(f"{key}: {shown(one)}" for key, one in value.items()) + "}"
        case list() | tuple():
            return "[" + ", ".join(map(shown, value)) + "]"
        case _:
            return str(value)


def from_problem(problem: Problem) -> Finding:
    return Finding(Severity.ERROR, problem.key, problem.seen, problem.expected)


@dataclass(frozen=True, slots=True)
class FindingOfRuns:
    """A finding and who has it."""

    finding: Finding
    runs: tuple[int, ...]
    """Numbers of the asked runs, in order."""


def together(found: Sequence[Sequence[Finding]]) -> list[FindingOfRuns]:
    """Equal findings once; what blocks comes first, in the order found."""
    runs: dict[Finding, list[int]] = {}
    for number, findings in enumerate(found):
        for one in dict.fromkeys(findings):
            runs.setdefault(one, []).append(number)
    order = list(Severity)
    told = [FindingOfRuns(finding, tuple(numbers)) for finding, numbers in runs.items()]
    return sorted(told, key=lambda one: order.index(one.finding.severity))


def blocking(told: Sequence[FindingOfRuns], *, force: bool) -> list[FindingOfRuns]:
    """What keeps the sweep from starting."""
    stops = (Severity.ERROR,) if force else (Severity.ERROR, Severity.GATE)
    return [one for one in told if one.finding.severity in stops]


def lines(told: Sequence[FindingOfRuns], names: Sequence[str]) -> list[str]:
    """One for each finding. `names`: what each asked run is called; who has it is told when there are several."""
    return [f"- {one.finding.text}{_whose(one.runs, names)}" for one in told]


def _whose(runs: Sequence[int], names: Sequence[str]) -> str:
    first = names[runs[0]]
    if len(names) == 1:
        return ""
    if len(runs) == len(names):
        return "\n  (all of them)"
    return f"\n  ({first})" if len(runs) == 1 else f"\n  ({len(runs)} runs, first {first})"


def as_json(told: Sequence[FindingOfRuns]) -> list[Mapping[str, Any]]:
    return [
        {
            "severity": one.finding.severity,
            "key": one.finding.key,
            "seen": one.finding.seen,
            "expected": one.finding.expected,
            "way_out": one.finding.way_out,
            "source": one.finding.source,
            "runs": list(one.runs),
        }
        for one in told
    ]
