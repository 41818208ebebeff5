"""What files add to a composed config, and what the same files add together: stored, and copied when it is used."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from hydra.core.default_element import InputDefault
from hydra.plugins.config_source import ConfigResult
from omegaconf import Container, DictConfig, OmegaConf, flag_override


class Part:
    """What a file adds to a composed config."""

    def __init__(self, loaded: ConfigResult) -> None:
        self._loaded = loaded
        self._pickled = pickled(loaded.config)
        self.sets_hydra = isinstance(loaded.config, DictConfig) and "hydra" in loaded.config

    def copied(self) -> ConfigResult:
        """Its config is a copy, since Hydra puts it into the config that it composes."""
        one = copy.copy(self._loaded)
        one.config = copy.deepcopy(one.config) if self._pickled is None else pickle.loads(self._pickled)
        return one


class _Defaults(list[InputDefault]):
    """Hydra copies a file's defaults list for each config that it composes."""

    def __deepcopy__(self, memo: dict[int, Any]) -> list[InputDefault]:
        return [copy.deepcopy(one) if isinstance(getattr(one, "value", None), list) else copy.copy(one) for one in self]


class ReadFile(ConfigResult):
    """A config file as one command has read it. The config is a copy, made when it is asked for, since Hydra may change
    it; most files are needed for their `parts` alone.
    """

    def __init__(self, read: ConfigResult, stored: bytes, parts: dict[tuple[str | None, bool], Part]) -> None:
        """`stored`: the config, pickled. `parts`: by what else a part depends on, its package and whether it is the
        root config."""
        vars(self).update({name: value for name, value in vars(read).items() if name != "config"})
        self.defaults_list = None if read.defaults_list is None else _Defaults(read.defaults_list)
        self._stored = stored
        self.parts = parts

    @cached_property
    def config(self) -> Container:  # type: ignore[override]
        config = pickle.loads(self._stored)
        assert isinstance(config, Container)
        return config


@dataclass(eq=False, slots=True)
class _Beginning:
    """The first parts of a list."""

    longer: dict[Part, _Beginning] = field(default_factory=dict)
    """By the next part."""
    merged: bytes | None = None
    """The parts as one config, if two lists have had these parts and no further one in common."""


class MergedParts:
    """The beginnings that the lists of a process have in common. Two configs differ in a few files of two dozen, most
    of them the last ones, and what a file adds is merged in a millisecond.
    """

    def __init__(self, most: int = 4096) -> None:
        """`most`: how many beginnings are known before all of them are forgotten."""
        self._most = most
        self._first = _Beginning()
        self._number = 0

    def beginning(self, parts: Sequence[Part]) -> tuple[int, DictConfig]:
        """How many of the first parts an earlier list has had, too, and what they are together, as a copy. Raises what
        omegaconf raises for parts that do not fit.
        """
        known = [self._first]
        while len(known) <= len(parts) and (longer := known[-1].longer.get(parts[len(known) - 1])):
            known.append(longer)
        same = len(known) - 1
        start = max((number for number, one in enumerate(known) if one.merged is not None), default=0)
        stored = known[start].merged
        config = OmegaConf.create() if stored is None else pickle.loads(stored)
        if start < same:
            _merge(config, parts[start:same])
            known[same].merged = pickled(config)
        self._add(known[same], parts[same:])
        return same, config

    def _add(self, known: _Beginning, further: Sequence[Part]) -> None:
        self._number += len(further)
        if self._number > self._most:
            self._first, self._number = _Beginning(), 0
            return
        for part in further:
            longer = known.longer[part] = _Beginning()
            known = longer


def _merge(config: DictConfig, parts: Sequence[Part]) -> None:
    """As Hydra merges what it composes."""
    with flag_override(config, "no_deepcopy_set_nodes", True):
        for part in parts:
            config.merge_with(part.copied().config)


def copied(config: DictConfig) -> DictConfig:
    """As copy.deepcopy() does it, in a tenth of the time."""
    stored = pickled(config)
    other = copy.deepcopy(config) if stored is None else pickle.loads(stored)
    assert isinstance(other, DictConfig)
    return other


def pickled(config: Any) -> bytes | None:
    """None for what only a process's own schema can describe."""
    try:
        return pickle.dumps(config, pickle.HIGHEST_PROTOCOL)
    except (pickle.PicklingError, AttributeError, TypeError):
        return None
