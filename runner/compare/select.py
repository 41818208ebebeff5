"""Which runs, and in which order: --where and --sort. Pure."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runner.compare.metric_names import logged_name
from runner.compare.ranking import OBJECTIVE, Row, by_held_out
from runner.compare.rung_reasons import reason_of
from runner.compare.source import RunFacts
from runner.errors import SweepError, did_you_mean
from runner.store.run_state import RunStatus, status_text

OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "!=": operator.ne,
    "<=": operator.le,
    ">=": operator.ge,
    "=": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
}
_CONDITION = re.compile(r"^(?P<key>[^=<>!]+)(?P<sign>!=|<=|>=|=|<|>)(?P<value>.*)$")

OF_A_RUN = ("key", "status", "reason", "why", "gpu", "attempts", "eval_fingerprint", "data_key", "sweep")
"""What --where takes besides config keys and the overrides of a run."""
BEGINNINGS = frozenset({"key", "eval_fingerprint", "data_key", "sweep"})
"""Long names: the beginning of their value is enough."""

COLUMNS = tuple(
    "key status first best final step seconds train_seconds tokens tokens_per_second paid_seconds dollars"
    " peak_memory_gib attempts gpu".split()
)
"""What --sort takes besides parameters and what was measured."""


@dataclass(frozen=True, slots=True)
class Condition:
    key: str
    sign: str
    value: str


def conditions(words: Iterable[str]) -> list[Condition]:
    """Raises SweepError for a word that is not a condition."""
    found = []
    for word in words:
        match = _CONDITION.match(word)
        if match is None:
            raise SweepError(f"--where {word}: a condition is KEY=VALUE, as in lora_r=16; also !=, <, >, <=, >=.")
        found.append(Condition(*(part.strip() for part in match.group("key", "sign", "value"))))
    return found


def select(facts: Sequence[RunFacts], wanted: Sequence[Condition]) -> list[RunFacts]:
    """The runs that meet all of these. Raises SweepError for a key that no run has, and when no run is left."""
    known = dict.fromkeys([*OF_A_RUN, *(name for one in facts for name in _names(one))])
    for one in wanted:
        if one.key not in known:
            raise SweepError(
                f"--where {one.key}: no run here has that key.{did_you_mean(one.key, known)} A condition is KEY=VALUE. "
                f"Keys: {', '.join(dict.fromkeys([*OF_A_RUN, *_differing(facts)]))}, or any other of a run's config."
            )
    left = [one for one in facts if all(_meets(one, condition) for condition in wanted)]
    if wanted and facts and not left:
        raise SweepError(f"No run meets the conditions. {'; '.join(_values_text(facts, one.key) for one in wanted)}.")
    return left


def in_order(rows: Sequence[Row], key: str, *, reverse: bool, metric: str = OBJECTIVE) -> list[Row]:
    """Sorted by a column or a parameter within each table; rows without a value always come last. `metric`: what the
    rows are compared by; its name stands for the column `final`."""
    key = "final" if logged_name(key.replace(" ", "_")) == metric else key
    names = {name for row in rows for name in (*row.params, *row.measured)}
    if key not in COLUMNS and key not in names:
        known = [*COLUMNS, metric, *sorted(names - {metric})]
        raise SweepError(f"--sort {key}: no such column.{did_you_mean(key, known)} There are: {', '.join(known)}.")
    tables: dict[str | None, list[Row]] = {}
    for row in rows:
        tables.setdefault(row.eval_fingerprint, []).append(row)
    ordered: list[Row] = []
    for fingerprint in sorted(tables, key=by_held_out):
        known_rows = [row for row in tables[fingerprint] if _is_known(_column(row, key))]
        known_rows.sort(key=lambda row: _order(_column(row, key)), reverse=reverse)
        ordered += known_rows + [row for row in tables[fingerprint] if not _is_known(_column(row, key))]
    return ordered


def _names(facts: RunFacts) -> Collection[str]:
    return [*facts.config, *_overrides(facts)]


def _differing(facts: Sequence[RunFacts]) -> list[str]:
    """The keys whose values differ here."""
    names = sorted({name for one in facts for name in _names(one)})
    return [name for name in names if len({repr(_values(one, name)) for one in facts}) > 1]


def _overrides(facts: RunFacts) -> dict[str, str]:
    """The overrides of its request, including groups such as lora=r16."""
    return {key.lstrip("+"): value for word in facts.overrides for key, _, value in [word.partition("=")]}


def _values(facts: RunFacts, key: str) -> list[Any]:
    """All values of a key: a run may be in several sweeps, and tables show a failure with its class, and other words
    for why a run went on from a rung than `--json`."""
    if key == "sweep":
        return list(facts.sweeps)
    if key == "status":
        return list(dict.fromkeys([facts.status, status_text(facts.status, facts.reason, facts.rung)]))
    if key == "why":
        ways = [way for last in facts.rungs[-1:] for way in (last.why, reason_of(facts, last)) if way]
        return list(dict.fromkeys(ways)) or [None]
    if key in OF_A_RUN:
        return [getattr(facts, key)]
    found = [facts.config[key]] if key in facts.config else []
    return found or [_overrides(facts).get(key)]


def _meets(facts: RunFacts, condition: Condition) -> bool:
    values = _values(facts, condition.key)
    if condition.sign == "!=":
        return not any(_holds(value, Condition(condition.key, "=", condition.value)) for value in values)
    return any(_holds(value, condition) for value in values)


def _holds(value: Any, condition: Condition) -> bool:
    text = _text(value)
    if condition.key in BEGINNINGS and condition.value:  # a key may look like a number: 145922764412
        return condition.sign == "=" and text.startswith(condition.value)
    one, other = _number(value), _number(condition.value)
    if one is not None and other is not None:
        return OPERATORS[condition.sign](one, other)
    if condition.sign != "=":
        return False
    if value is None:
        return condition.value in ("null", "none")
    return text == condition.value or text.endswith(f"/{condition.value}")  # the last parts of a path are enough


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _text(value: Any) -> str:
    """As it is written in an override."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _values_text(facts: Sequence[RunFacts], key: str) -> str:
    values = dict.fromkeys(_text(value) for one in facts for value in _values(one, key))
    shown = ", ".join(list(values)[:8])
    return f"{key} is {shown}{', ...' if len(values) > 8 else ''} here"


def _column(row: Row, key: str) -> Any:
    if key == "status":
        return status_text(row.status, row.reason, row.rung or 0)  # as the table shows it
    if key in ("final", "best") and row.status is RunStatus.AT_RUNG:
        return None  # nor has the table
    return getattr(row, key) if key in COLUMNS else {**row.measured, **row.params}.get(key)


def _is_known(value: Any) -> bool:
    return value is not None and not (isinstance(value, float) and not math.isfinite(value))


def _order(value: Any) -> tuple[bool, float, str]:
    number = _number(value)
    return (number is None, number or 0.0, _text(value))
