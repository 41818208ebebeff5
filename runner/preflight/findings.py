"""A finding: something that a person should know about a run before it starts. Reported once for all its runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from modal_app.store.problem import Problem


class Severity(StrEnum):
    ERROR = "error"
    """The run cannot work: it is never launched."""
    GATE = "gate"
    """The run would most likely fail: it is launched only with --force."""
    WARNING = "warning"
    """The run is launched, and the finding is printed."""


@dataclass(frozen=True, slots=True)
class Finding:
    severity: Severity
    key: str
    """As on the command line: `learning_rate`, `datasets.0.path`, `gpu.count`."""
    seen: str
    """The value as written on the command line, or a description: `(a secret)`. Empty if `expected` contains it."""
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
            return ""  # `expected` names the key
        return f"{self.key}{' ' if self.seen.startswith('(') else '='}{self.seen}: "


def error(key: str, seen: Any, expected: str, way_out: str = "", source: str = "") -> Finding:
    return Finding(Severity.ERROR, key, shown(seen), expected, way_out, source)


def gate(key: str, seen: Any, expected: str, way_out: str = "", source: str = "") -> Finding:
    return Finding(Severity.GATE, key, shown(seen), expected, way_out, source)


def warning(key: str, seen: Any, expected: str, way_out: str = "", source: str = "") -> Finding:
    return Finding(Severity.WARNING, key, shown(seen), expected, way_out, source)


def shown(value: Any) -> str:
    """A config's value as written on the command line."""
    match value:
        case bool():
            return str(value).lower()
        case None:
            return "null"
        case "":
            return "''"  # an empty value would be invisible
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
    """A finding and the runs that have it."""

    finding: Finding
    runs: tuple[int, ...]
    """Numbers of the requested runs, in order."""


def together(found: Sequence[Sequence[Finding]]) -> list[FindingOfRuns]:
    """Equal findings once, the most severe first."""
    runs: dict[Finding, list[int]] = {}
    for number, findings in enumerate(found):
        for one in dict.fromkeys(findings):
            runs.setdefault(one, []).append(number)
    order = list(Severity)
    grouped = [FindingOfRuns(finding, tuple(numbers)) for finding, numbers in runs.items()]
    return sorted(grouped, key=lambda one: order.index(one.finding.severity))


@dataclass(frozen=True, slots=True)
class PrintedFinding:
    """A finding in the output of `plan --json`."""

    severity: Severity
    key: str
    """As on the command line."""
    seen: str
    expected: str
    way_out: str
    source: str
    """Where this is documented: a URL."""
    runs: tuple[int, ...]
    """Their numbers."""


def blocking(findings: Sequence[FindingOfRuns], *, force: bool) -> list[FindingOfRuns]:
    """The findings that prevent the sweep from starting."""
    stops = (Severity.ERROR,) if force else (Severity.ERROR, Severity.GATE)
    return [one for one in findings if one.finding.severity in stops]


def lines(findings: Sequence[FindingOfRuns], names: Sequence[str]) -> list[str]:
    """One for each finding. `names`: of the requested runs. If there are several, each line says which have it."""
    return [f"- {one.finding.text}{_runs_text(one.runs, names)}" for one in findings]


def _runs_text(runs: Sequence[int], names: Sequence[str]) -> str:
    first = names[runs[0]]
    if len(names) == 1:
        return ""
    if len(runs) == len(names):
        return "\n  (all of them)"
    return f"\n  ({first})" if len(runs) == 1 else f"\n  ({len(runs)} runs, first {first})"


def which_runs(names: Sequence[str], total: int) -> str:
    """The runs that a line of several is about, for its end; empty if it is about all."""
    if len(names) == total:
        return ""
    return f"  ({names[0]})" if len(names) == 1 else f"  ({len(names)} runs, first {names[0]})"


def printed_findings(findings: Sequence[FindingOfRuns]) -> tuple[PrintedFinding, ...]:
    return tuple(
        PrintedFinding(
            severity=one.finding.severity,
            key=one.finding.key,
            seen=one.finding.seen,
            expected=one.finding.expected,
            way_out=one.finding.way_out,
            source=one.finding.source,
            runs=tuple(one.runs),
        )
        for one in findings
    )
