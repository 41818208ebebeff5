"""What distinguishes runs: the parameters that differ, and how they are written. Pure."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from runner.console.numbers import number
from runner.types import Experiment

MOST_PARAMS = 12
"""With more columns than this, a table no longer shows what a run is."""
SAYS_NOTHING = frozenset(("null", "false", '""', "[]", "{}"))
"""Values, as JSON, by which a key is not set. A column with no other values is shown only if it distinguishes runs."""


def differing_params(configs: Sequence[Mapping[str, Any]], requested: Collection[str] = ()) -> list[dict[str, Any]]:
    """The values of each config that differ between the configs, without keys that follow from another (alpha = 2r).
    `requested`: keys that do not follow from another, even if it seems so: where all points of a search have different
    rates, their ranks would follow from their rates.

    >>> differing_params([{"lora_r": 8, "lora_alpha": 16, "seed": 1}, {"lora_r": 16, "lora_alpha": 32, "seed": 1}])
    [{'lora_r': 8}, {'lora_r': 16}]
    """
    names = dict.fromkeys(name for config in configs for name in config)
    columns: dict[str, tuple[str, ...]] = {}
    for name in sorted(names, key=_telling_first):
        found = [config.get(name) for config in configs]
        if all(value is found[0] for value in found):
            continue  # a fast path: most keys have the same value in all, and most configs share that object
        values = tuple(map(_json, found))
        if len(set(values)) > 1:
            follows = name not in requested and any(same_partition(values, seen) for seen in columns.values())
            if not follows:
                columns[name] = values
    for name in [one for one, values in columns.items() if all(value in SAYS_NOTHING for value in values)]:
        rest = [values for one, values in columns.items() if one != name]
        if len(set(zip(*rest, strict=True))) == len(set(zip(*columns.values(), strict=True))):
            del columns[name]
    return [{name: config.get(name) for name in columns} for config in configs]


def shown_params(configs: Sequence[Mapping[str, Any]], overrides: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    """What distinguishes each run: the parameters that differ, or if those are too many, the overrides that differ.

    The runs of a sweep over base=a.yml,b.yml may differ in anything.
    """
    params = differing_params(configs, requested_params(configs, overrides))
    if not params or len(params[0]) <= MOST_PARAMS:
        return params
    words = _by_key(overrides)
    shorter = differing_params(words, frozenset(key for one in words for key in one))
    distinct = {tuple(one.values()) for one in shorter}
    return shorter if len(distinct) == len(configs) else params


def requested_params(configs: Sequence[Mapping[str, Any]], overrides: Sequence[Sequence[str]]) -> frozenset[str]:
    """The keys of configs that overrides set to different values; for a group, the first key that follows from it."""
    words = _by_key(overrides)
    varied = {
        key.removeprefix("axolotl."): values
        for key in dict.fromkeys(key for one in words for key in one)
        if len(set(values := tuple(one.get(key, "") for one in words))) > 1
    }
    if len(varied) < 2:
        return frozenset(varied)
    names = {name for config in configs for name in config}
    rest = sorted(names - varied.keys(), key=_telling_first)
    first = (_first_with(values, rest, configs) for key, values in varied.items() if key not in names)
    return frozenset((*(key for key in varied if key in names), *(name for name in first if name)))


def _first_with(values: Sequence[str], names: Sequence[str], configs: Sequence[Mapping[str, Any]]) -> str | None:
    """The first of these keys that distinguishes the same configs as the values."""
    for name in names:
        found = [config.get(name) for config in configs]
        if any(value is not found[0] for value in found) and same_partition(list(map(_json, found)), values):
            return name
    return None


def _by_key(overrides: Sequence[Sequence[str]]) -> list[dict[str, str]]:
    return [{key: value for word in words for key, _, value in [word.partition("=")]} for words in overrides]


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def params_of(experiments: Sequence[Experiment]) -> list[dict[str, Any]]:
    """What distinguishes each experiment from the others."""
    return shown_params([flat_experiment(one) for one in experiments], [one.overrides for one in experiments])


def flat_experiment(experiment: Experiment) -> dict[str, Any]:
    """An experiment's config and where it runs, one level deep with dotted names."""
    gpu, data = experiment.gpu, experiment.data
    where, rows = {"type": gpu.type, "count": gpu.count}, {"limit": data.limit, "seed": data.seed}
    start = experiment.start_checkpoint
    return flat(experiment.axolotl, where, rows, {"run": start.run, "step": start.step} if start else None)


def label(params: Mapping[str, Any]) -> str:
    """Parameters as they are written on the command line, without those that a run has not set.

    >>> label({"lora_r": 8, "load_in_4bit": None})
    'lora_r=8'
    """
    return labels([params])[0]


def labels(several: Sequence[Mapping[str, Any]]) -> list[str]:
    """The same of several runs. A path is complete where two different ones would look the same."""
    names = dict.fromkeys(name for params in several for name in params)
    shown = {name: show_values([params.get(name) for params in several]) for name in names}
    return [
        " ".join(f"{name}={shown[name][place]}" for name, value in params.items() if value is not None)
        for place, params in enumerate(several)
    ]


def show_value(value: Any) -> str:
    """A parameter's value in a table or a label: numbers short, paths by their last two parts, texts in one line."""
    if isinstance(value, float):
        return number(value)
    if isinstance(value, str) and value.startswith("/"):
        return "/".join(_one_line(value).split("/")[-2:])
    return _one_line(value)


def show_values(values: Sequence[Any]) -> tuple[str, ...]:
    """The same of several runs, and complete where two different values would look the same."""
    short, exact = tuple(map(show_value, values)), tuple(map(_one_line, values))
    return short if len(set(short)) == len(set(exact)) else exact


def _one_line(value: Any) -> str:
    text = "" if value is None else str(value)
    return text if text.isprintable() else " ".join(text.split())


def same_partition(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether two columns distinguish the same rows, so that one only repeats the other in other words."""
    pairs = set(zip(one, other, strict=True))
    return len(pairs) == len(set(one)) == len(set(other))


_TELLING = ("from", "learning_rate", "lora_r", "base_model", "datasets", "gpu", "seed", "data")


def _telling_first(name: str) -> tuple[int, str]:
    """The order of columns: names that people choose come before names that only follow from them."""
    root = name.split(".")[0]
    return (_TELLING.index(root) if root in _TELLING else len(_TELLING), name)


def flat(
    axolotl: Mapping[str, Any],
    gpu: Mapping[str, Any],
    data: Mapping[str, Any],
    start: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A config and where it runs, one level deep: `datasets.0.path`, `gpu.count`.

    `start`: run and step of the checkpoint that it continues from; `from` is then RUN@STEP.
    """
    found: dict[str, Any] = {}
    _flatten(dict(axolotl), "", found)
    _flatten({"gpu": dict(gpu), "data": dict(data)}, "", found)
    if start:
        found["from"] = f"{start['run']}@{start['step']}"
    return found


def _flatten(value: Any, prefix: str, into: dict[str, Any]) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            _flatten(item, f"{prefix}.{key}" if prefix else str(key), into)
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for index, item in enumerate(value):
            _flatten(item, f"{prefix}.{index}", into)
    else:
        into[prefix] = value
