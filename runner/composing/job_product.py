"""A sweep's axes -> its jobs, each a list of plain overrides, in Hydra's own grammar (choice, range, glob...)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override

from runner.composing.experiment import is_of_request
from runner.config.overrides import axis, canonical
from runner.config.vocabulary import Vocabulary
from runner.errors import SweepError

Job = tuple[str, ...]


def canonical_axes(params: Mapping[str, Any], vocabulary: Vocabulary) -> list[str]:
    """`hydra.sweeper.params` of a sweep file as canonical overrides; bare keys and YAML lists are accepted."""
    return [canonical(axis(str(key), value), vocabulary) for key, value in params.items()]


def make_jobs(overrides: Sequence[str], loader: ConfigLoader) -> tuple[list[Job], list[str]]:
    """The product of all axes, and the keys that are axes. A later override of a key replaces an earlier one."""
    axes: dict[str, list[str]] = {}
    swept: dict[str, bool] = {}
    for override in OverridesParser.create(config_loader=loader).parse_overrides(list(overrides)):
        key = override.get_key_element().lstrip("+~")
        _refuse_unsweepable(override, key)
        axes[key] = _values(override)
        swept[key] = override.is_sweep_override()
    return list(itertools.product(*axes.values())), [key for key in swept if swept[key]]


def _refuse_unsweepable(override: Override, key: str) -> None:
    if not override.is_sweep_override():
        return
    if is_of_request(key):
        raise SweepError(f"{override.input_line}: {key} applies to all runs of a command and cannot be swept.")
    if override.is_hydra_override():
        raise SweepError(
            f"{override.input_line}: Hydra's own configuration cannot be swept. "
            "What a run needs (GPUs, memory) is swept with gpu=... and gpu.count=..."
        )
    if not override.is_discrete_sweep():
        raise SweepError(
            f"{override.input_line}: an interval has infinitely many values. Write a list or range(start,stop,step); "
            "a search over intervals needs a sweeper that searches (hydra/sweeper=...)."
        )


def _values(override: Override) -> list[str]:
    key = override.get_key_element()
    if override.is_sweep_override():
        values = [f"{key}={value}" for value in override.sweep_string_iterator()]
        if not values:
            raise SweepError(f"{override.input_line} matches nothing, so there is nothing to run.")
        return values  # a repeated value, too: plan counts it as a duplicate
    if override.is_delete() and override.value() is None:
        return [key]
    return [f"{key}={override.get_value_element_as_str()}"]
