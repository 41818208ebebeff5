"""What the jobs of one set of group choices share: composed once by Hydra, then each job's values are set in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

from hydra.core.default_element import ResultDefault
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from runner.composing.config_parts import copied
from runner.composing.hydra_inside import PLUGINS, CachingLoader, apply_overrides, is_typed, plain
from runner.composing.interpolations import InterpolationReads, reads_of
from runner.composing.job_overrides import JobOverride, in_order, independent
from runner.composing.plain_values import NotPlain, with_value

HYDRA_ERRORS = (HydraException, OmegaConfBaseException)
CANNOT_SET = (*HYDRA_ERRORS, NotPlain, ValueError, TypeError, LookupError, AttributeError, AssertionError)
"""What setting values in a config may raise. Hydra then composes the job itself: it succeeds, or reports the error."""

_MOST_LAYERED = 256


@dataclass(slots=True)
class SharedConfig:
    """The config of one set of group choices, without Hydra's own node."""

    config: DictConfig
    raw: Mapping[str, Any]
    """Plain and unresolved."""
    reads: InterpolationReads
    choices: Mapping[str, Any]
    """The groups' options, as Hydra records them."""
    sets: str | None
    """`sweeper` or `launcher`, if a choice sets it differently from the config that the sweep started with."""
    _layered: dict[tuple[str, ...], Mapping[str, Any]] = field(default_factory=dict)
    _splits: dict[tuple[Any, ...], tuple[bool, ...]] = field(default_factory=dict)

    def with_values(self, values: Sequence[JobOverride]) -> Mapping[str, Any]:
        """Plain and resolved, sharing what it can with other jobs. Raises one of CANNOT_SET for what only Hydra can
        do, or what it refuses.
        """
        last = self._split(values)
        node = self._by_hydra([one for one, is_last in zip(values, last, strict=True) if not is_last])
        for one, is_last in zip(values, last, strict=True):
            if is_last:
                assert one.sign is not None
                node = with_value(node, one.path, one.value, one.sign)
        return node

    def _split(self, values: Sequence[JobOverride]) -> tuple[bool, ...]:
        """For each override, whether it is a plain value that can be set after everything else."""
        shape = tuple((one.path, one.override.type, one.sign, one.reads) for one in values)
        if shape not in self._splits:
            self._splits[shape] = in_order(self.raw, values, independent(self.reads, values))
        return self._splits[shape]

    def _by_hydra(self, values: Sequence[JobOverride]) -> Mapping[str, Any]:
        """Resolved, with overrides applied by Hydra's own function."""
        texts = tuple(str(one.override.input_line) for one in values)
        if (known := self._layered.get(texts)) is not None:
            return known
        if any(one.reads.impure for one in values):
            raise NotPlain
        config = self.config
        if values:
            config = copied(config)
            apply_overrides([one.override for one in values], config)
        node = plain(config, resolve=True)
        if len(self._layered) == _MOST_LAYERED:
            self._layered.pop(next(iter(self._layered)))
        self._layered[texts] = node
        return node


class SharedConfigs:
    """`master` is the config that the sweep started with.

    Most of what Hydra composes is its own node, which nearly always is the same for all sets of a sweep. So a set is
    composed without it if that node is set by the files that set it in `master`; otherwise, it is composed once for
    each way in which the sets' files set the plugins.
    """

    def __init__(self, master: DictConfig, loader: CachingLoader) -> None:
        self._master = master
        self._loader = loader
        self._hydra_overrides = OverridesParser.create().parse_overrides(list(master.hydra.overrides.hydra))
        self._sets: dict[str, str | None] = {}
        """`sets` of a SharedConfig, by what decides the plugins."""
        self._plugins = str([plain(master.hydra[name], resolve=False) for name in PLUGINS])

    def shared_by(self, choices: Sequence[Override]) -> SharedConfig:
        """Raises Hydra's error for the choices. Hydra finds all of them before it looks at any value, with one
        exception: a choice that changes a plugin, which 1.4 refuses.
        """
        try:
            found = self._loader.load_without_hydra(self._master, [*self._hydra_overrides, *choices])
        except HYDRA_ERRORS:
            return self._complete(choices)  # Hydra raises the error with its full message
        if "${" in self._plugins + found.plugins:
            return self._complete(choices)  # an interpolation may read what differs between sets
        if found.set_by == self._set_by:
            return _shared(found.config, found.choices, None)
        if found.plugins not in self._sets:
            complete = self._complete(choices)
            self._sets[found.plugins] = complete.sets
            return complete
        return _shared(found.config, found.choices, self._sets[found.plugins])

    @cached_property
    def _set_by(self) -> Sequence[ResultDefault] | None:
        """The files that set something in Hydra's own node of the config that the sweep started with, if known."""
        return self._loader.files_of_hydra()

    def _complete(self, choices: Sequence[Override]) -> SharedConfig:
        config = self._loader.load_sweep_config(self._master, [str(one.input_line) for one in choices])
        named, sets = self.facts(config)
        with open_dict(config):
            config.pop("hydra")
        return _shared(config, named, sets)

    def facts(self, config: DictConfig) -> tuple[Mapping[str, Any], str | None]:
        """`choices` and `sets` of a config as Hydra composes it."""
        choices = cast(dict[str, Any], OmegaConf.to_container(config.hydra.runtime.choices))
        return choices, next((one for one in PLUGINS if self._master.hydra[one] != config.hydra[one]), None)


def _shared(config: DictConfig, choices: Mapping[str, Any], sets: str | None) -> SharedConfig:
    raw = plain(config, resolve=False)
    reads = InterpolationReads(impure=True) if is_typed(config) else reads_of(raw)
    return SharedConfig(config, raw, reads, choices, sets)
