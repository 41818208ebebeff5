"""Overrides in Hydra's grammar (choice, range, glob, interval, tag...) -> the space of a sweep's points."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.errors import HydraException

from runner.composing.axes import (
    Axis,
    AxisRules,
    ChoiceAxis,
    Condition,
    Exclude,
    FixedOverride,
    IntervalAxis,
    SearchSpace,
    names,
)
from runner.composing.experiment import is_of_request
from runner.composing.hydra_inside import unshuffled, values_of
from runner.config.overrides import axis, base_spoken, canonical, parts, spoken
from runner.config.project import SWEEPS
from runner.config.vocabulary import AXOLOTL, EXPERIMENT, Vocabulary
from runner.errors import SweepError, did_you_mean

LOG = "log"
SEARCH = "search"
RUNGS = "search.rungs"
PARAMS = "hydra.sweeper.params."
_WORD = re.compile(r"""(?:[^\s'"]|'[^']*'|"[^"]*")+""")
"""An override of an exclude; it may have quoted spaces."""


def canonical_axes(params: Mapping[str, Any], vocabulary: Vocabulary) -> list[str]:
    """`hydra.sweeper.params` of a sweep file as canonical overrides; bare keys and YAML lists are accepted. Raises
    SweepError for what applies to all runs of a command: Hydra gives params to the runs alone, so it would be lost."""
    if key := next((str(key) for key in params if is_of_request(str(key).lstrip("+~"))), ""):
        place = "defaults list (`- override /search: OPTION`)" if key == SEARCH else "top level, next to hydra:,"
        raise SweepError(
            f"hydra.sweeper.params: {key} applies to all runs of a command, so it is not an axis. Write it at the "
            f"file's {place} or on the command line."
        )
    if any(str(key).lstrip("+~") == SWEEPS for key in params):
        raise SweepError(f"hydra.sweeper.params: {SWEEPS} is not an axis, since a command launches one sweep file.")
    return [canonical(axis(str(key), value), vocabulary) for key, value in params.items()]


def rules_of(node: Mapping[str, Any]) -> AxisRules:
    """`hydra.sweeper.zip` and `hydra.sweeper.exclude`, as the flags --zip and --exclude have them."""
    zips, excludes = node.get("zip") or [], node.get("exclude") or []
    if not isinstance(zips, list) or not all(isinstance(one, list) for one in zips):
        raise SweepError(f"hydra.sweeper.zip is {zips!r}; expected lists of axes, as in [[lora_r, lora_alpha]].")
    if not isinstance(excludes, list) or not all(isinstance(one, str) for one in excludes):
        raise SweepError(
            f"hydra.sweeper.exclude is {excludes!r}; expected a list of texts, as in ['lora=r128 learning_rate=8e-4']."
        )
    return AxisRules(tuple(",".join(map(str, one)) for one in zips), tuple(excludes))


def refuse_swept_request(overrides: Sequence[str], loader: ConfigLoader) -> None:
    """Raises SweepError for canonical overrides that sweep over what describes the whole command. Hydra leaves them out
    of the sweep's own config, which then says something else."""
    of_request = [one for one in overrides if is_of_request(parts(one).key.lstrip("+~"))]
    for override in OverridesParser.create(config_loader=loader).parse_overrides(of_request):
        _refuse_unsweepable(override, override.get_key_element().lstrip("+~"))


def read_space(
    overrides: Sequence[str], loader: ConfigLoader, vocabulary: Vocabulary, *, shuffled: bool
) -> SearchSpace:
    """The axes among canonical overrides, and the rest. A later override of a key replaces an earlier one.

    `shuffled`: whether shuffle() has an effect; without it, equal overrides always give equal spaces.
    Raises SweepError for what cannot vary.
    """
    found: dict[str, FixedOverride | Axis] = {}
    for override in OverridesParser.create(config_loader=loader).parse_overrides(list(overrides)):
        key = override.get_key_element().lstrip("+~")
        _refuse_unsweepable(override, key)
        if key.partition(".")[0] == SEARCH:
            continue  # it chooses the points, and is no part of one
        if any(other != key and _overlap(other, key) for other in found):
            found.pop(key, None)  # so that it counts after the other, as in Hydra
        found[key] = _part(override, vocabulary, shuffled=shuffled)
    return SearchSpace(tuple(found.values()))


def _overlap(one: str, other: str) -> bool:
    """Whether one key lies below the other: `datasets.0.path` below `datasets`."""
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


def with_rules(space: SearchSpace, rules: AxisRules, vocabulary: Vocabulary) -> SearchSpace:
    """The space with zips and excludes of the command line. Raises SweepError for those that do not fit the axes."""
    zips = space.zips + tuple(_zip(text, space.axes, vocabulary) for text in rules.zips)
    _refuse_twice([name for one in zips for name in one])
    excludes = space.excludes + tuple(_exclude(text, space, vocabulary) for text in rules.excludes)
    return replace(space, zips=zips, excludes=excludes)


def with_file_rules(
    space: SearchSpace, rules: AxisRules, arguments: Sequence[str], vocabulary: Vocabulary
) -> SearchSpace:
    """The same with those of the config. `arguments`: the overrides of the command line, which may replace axes: then
    zips of axes that all have one value are gone, and an exclude may leave out nothing.
    """
    axes = {one.name for one in space.axes}
    replaced = _names([parts(one).key.removeprefix(PARAMS) for one in arguments], vocabulary)
    zips = [text for text in rules.zips if not _names(text.split(","), vocabulary) <= replaced - axes]
    found = with_rules(space, AxisRules(tuple(zips)), vocabulary)
    for text in rules.excludes:
        named = _names([word.partition("=")[0] for word in _WORD.findall(text)], vocabulary)
        exclude = _exclude(text, space, vocabulary, optional=bool(named & replaced))
        found = replace(found, excludes=(*found.excludes, exclude))
    return found


def _names(words: Iterable[str], vocabulary: Vocabulary) -> set[str]:
    return {_axis_name(word, vocabulary) for word in words}


def _refuse_unsweepable(override: Override, key: str) -> None:
    if not override.is_sweep_override():
        return
    if is_of_request(key):
        given = str(override.input_line)
        way_out = f" For a list, write '{key}=[{parts(given).value}]'." if key == RUNGS else ""
        raise SweepError(f"{given}: {key} applies to all runs of a command and cannot be swept.{way_out}")
    if key == SWEEPS:
        raise SweepError(f"{override.input_line}: a command launches one sweep file. Launch them one after the other.")
    if override.is_hydra_override():
        raise SweepError(
            f"{override.input_line}: Hydra's own configuration cannot be swept. "
            "What a run needs (GPUs, memory) is swept with gpu=... and gpu.count=..."
        )


def _part(override: Override, vocabulary: Vocabulary, *, shuffled: bool) -> FixedOverride | Axis:
    head = override.get_key_element()
    name = _name(override, vocabulary)
    value = override.value()
    if not override.is_sweep_override():
        if override.is_delete() and value is None:
            return FixedOverride(name, head, None)
        text = override.get_value_element_as_str()
        return FixedOverride(name, f"{head}={text}", _users_value(override, value, vocabulary))
    if isinstance(value, IntervalSweep):
        return _interval(override, name, value, vocabulary)
    found = values_of(override if shuffled else unshuffled(override))
    if not found:
        raise SweepError(f"{override.input_line} matches nothing, so there is nothing to run.")
    plain = tuple(_users_value(override, one, vocabulary) for one, _ in found)
    texts = tuple(text for _, text in found)
    return ChoiceAxis(name, head, plain, texts)  # a repeated value, too: plan counts it as a duplicate


def _name(override: Override, vocabulary: Vocabulary) -> str:
    """The name of an axis, in the user's words."""
    first = parts(override.input_line or "")
    option = next((one for one in vocabulary.bases if one in (first.value or "")), "")
    if first.key == EXPERIMENT and option:
        return parts(base_spoken(f"{EXPERIMENT}={option}", vocabulary)).key
    return spoken(override.get_key_element(), vocabulary).lstrip("+~")


def _users_value(override: Override, value: Any, vocabulary: Vocabulary) -> Any:
    """An option that stands for base=FILE or from=RUN as that file or run."""
    source = vocabulary.bases.get(value) if isinstance(value, str) else None
    return source.value if source is not None and override.key_or_group == EXPERIMENT else value


def _interval(override: Override, name: str, value: IntervalSweep, vocabulary: Vocabulary) -> IntervalAxis:
    line = spoken(override.input_line or "", vocabulary)
    low, high = value.start, value.end
    assert low is not None
    assert high is not None
    integer = isinstance(low, int) and isinstance(high, int)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise SweepError(f"{line}: the first end has to be less than the second one, and both finite.")
    if unknown := value.tags - {LOG}:
        raise SweepError(f"{line}: {', '.join(sorted(unknown))} means nothing here. An interval's only tag is log.")
    log = LOG in value.tags
    if log and low <= 0:
        raise SweepError(f"{line}: on a log scale, both ends have to be more than 0.")
    field = vocabulary.fields.top.get(name)
    if field is not None and "int" in field.type and "float" not in field.type and not integer:
        way_out = f"{name}=int(interval({low:g},{high:g}))"
        raise SweepError(f"{line}: {name} is a whole number, and an interval has fractions. Write '{way_out}'.")
    return IntervalAxis(name, override.get_key_element(), low, high, log, integer)


def _zip(text: str, axes: Sequence[Axis], vocabulary: Vocabulary) -> tuple[str, ...]:
    """The names of axes that move together."""
    known = {one.name: one for one in axes}
    zipped = tuple(_axis_name(word, vocabulary) for word in text.split(",") if word.strip())
    if len(zipped) < 2:
        raise SweepError(f"--zip {text}: at least two axes move together, as in --zip lora_r,lora_alpha.")
    for name in zipped:
        if name not in known:
            meant = did_you_mean(name, known)
            raise SweepError(f"--zip {text}: {name} is not an axis of this sweep.{meant} The axes: {names(axes)}.")
        if isinstance(known[name], IntervalAxis):
            raise SweepError(f"--zip {text}: {name} is an interval, which has no list of values. Write a list.")
    lengths = {name: len(one.values) for name in zipped if isinstance(one := known[name], ChoiceAxis)}
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise SweepError(f"--zip {text}: axes that move together need the same number of values, but {counts}.")
    return zipped


def _refuse_twice(zipped: Sequence[str]) -> None:
    for name in zipped:
        if zipped.count(name) > 1:
            raise SweepError(f"--zip: {name} is named twice. Name all axes that move with it in one --zip.")


def _axis_name(word: str, vocabulary: Vocabulary) -> str:
    bare = word.strip().lstrip("+~")
    forced = f"++{bare}" if bare.startswith(f"{AXOLOTL}.") else bare
    return spoken(forced, vocabulary).lstrip("+~")


def _exclude(text: str, space: SearchSpace, vocabulary: Vocabulary, *, optional: bool = False) -> Exclude:
    words = _WORD.findall(text)
    if not words:
        raise SweepError("--exclude is empty. Write KEY=VALUE for each axis, as in 'lora=r128 learning_rate=8e-4'.")
    known = {one.name: one for one in space.parts}
    conditions = []
    for word in words:
        condition = _condition(text, word, vocabulary)
        part = known.get(condition.name)
        if part is None and not optional:
            meant, axes = did_you_mean(condition.name, known), names(space.axes)
            what = f"{condition.name} is not an axis of this sweep"
            raise SweepError(f"--exclude '{text}': {what}.{meant} The axes: {axes}.")
        if part is not None and not optional and not _is_possible(condition, part):
            raise SweepError(f"--exclude '{text}': {word} matches no value of {condition.name}. {_values(part)}")
        conditions.append(condition)
    return Exclude(text, tuple(conditions), optional)


def _condition(text: str, word: str, vocabulary: Vocabulary) -> Condition:
    key, equals, value = word.partition("=")
    if not equals or not value:
        raise SweepError(f"--exclude '{text}': {word} is not KEY=VALUE.")
    try:
        override = OverridesParser.create().parse_override(f"{key.lstrip('+~')}={value}")
    except HydraException as error:
        raise SweepError(f"--exclude '{text}': the value of {word} cannot be read; quote it.") from error
    name = _axis_name(key, vocabulary)
    found = override.value()
    if isinstance(found, IntervalSweep):
        assert found.start is not None
        assert found.end is not None
        return Condition(name, between=(found.start, found.end))
    if override.is_sweep_override():
        return Condition(name, tuple(value for value, _ in values_of(override)))
    return Condition(name, (found,))


def _is_possible(condition: Condition, part: FixedOverride | Axis) -> bool:
    """Whether a value of the axis can fulfil the condition."""
    match part:
        case FixedOverride():
            return condition.holds(part.value)
        case ChoiceAxis():
            return any(condition.holds(value) for value in part.values)
        case IntervalAxis():
            low, high = part.low, part.high
            if condition.between is not None:
                return condition.between[0] < high and low < condition.between[1]
            return any(isinstance(one, int | float) and low <= one <= high for one in condition.values)


def _values(part: FixedOverride | Axis) -> str:
    match part:
        case FixedOverride():
            return f"It is {part.value!r}."
        case ChoiceAxis():
            return f"Its values: {', '.join(dict.fromkeys(part.texts))}."
        case IntervalAxis():
            return f"It is between {part.low:g} and {part.high:g}."
