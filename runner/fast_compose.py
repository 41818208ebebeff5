"""A sweep's jobs -> plain configs, equal to Hydra's own for each job. All that is known of Hydra's inside is here.

Hydra composes a job in tens of milliseconds, most of them spent on what a sweep's jobs share: config files, defaults
lists, group choices. So Hydra composes each distinct set of group choices once (a base), Hydra's own function lays over
it what interpolations may read, and a plain value that none reads is set in a copy of the plain result. Whatever this
cannot do for a job is left to Hydra, its errors among them. tests/runner/test_fast_compose.py holds both equal.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, cast

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from runner.interpolations import Path, Reads, is_path, reads_of, related
from runner.plain_values import NotPlain, Sign, with_value

Job = Sequence[str]

_SIGNS = {OverrideType.CHANGE: Sign.CHANGE, OverrideType.ADD: Sign.ADD, OverrideType.FORCE_ADD: Sign.FORCE}
_HYDRAS = (HydraException, OmegaConfBaseException)
_MOST_LAYERED = 256
_FAILURES = (*_HYDRAS, NotPlain, ValueError, TypeError, LookupError, AttributeError, AssertionError)
"""What setting a value may end in. Hydra is asked then: it succeeds, or it says what is wrong."""


@dataclass(frozen=True, slots=True)
class Composed:
    """One job. Its subtrees may be shared with other jobs': never changed."""

    node: Mapping[str, Any]
    """Everything but Hydra's own node, resolved and plain; unresolved where it cannot be resolved."""
    choices: Mapping[str, Any]
    """The groups' options."""
    sets: str | None
    """`sweeper` or `launcher`, where the job says something else of it than the sweep did when it started."""
    unresolved: OmegaConfBaseException | None = None
    config: DictConfig | None = None
    """As Hydra has it, where that was asked for."""


def compose_all(
    master: DictConfig, jobs: Sequence[Job], loader: ConfigLoader, first: int = 0, *, by_hydra: bool = False
) -> list[Composed | Exception]:
    """Each job, numbered from `first`, or Hydra's (or omegaconf's) error for it. `by_hydra`: with its `config`.

    `master` is the config that Hydra started the sweep with. Jobs are taken in an order in which one base follows
    another, so that what is kept does not grow with their number.
    """
    composer = _Composer(master, loader, keep=by_hydra)
    found: dict[int, Composed | Exception] = {}
    if len(jobs) == 1 and not by_hydra and composer.is_master(jobs[0]):
        return [composer.described(copy.deepcopy(master), first)]
    for group in composer.by_choices(jobs, by_hydra=by_hydra):
        for number in group.jobs:
            try:
                found[number] = composer.compose(group, jobs[number], first + number)
            except _HYDRAS as error:
                found[number] = error
    return [found[number] for number in range(len(jobs))]


@dataclass(frozen=True, slots=True)
class _Asked:
    """An override, parsed once for all jobs that have it."""

    override: Override
    path: Path
    sign: Sign | None
    """How a plain value is set; None for everything else, which Hydra does."""
    value: Any
    reads: Reads
    """What the interpolations in its value read."""
    scope: Path
    """What it may change: an entry of a list that is taken out moves the others."""


@dataclass(frozen=True, slots=True)
class _Jobs:
    """Jobs with the same group choices; `choices` is None for those that are left to Hydra."""

    choices: tuple[str, ...] | None
    jobs: list[int]


@dataclass(slots=True)
class _Base:
    """What the jobs of one set of group choices have in common."""

    config: DictConfig
    """Without Hydra's own node."""
    choices: Mapping[str, Any]
    sets: str | None
    raw: Mapping[str, Any]
    """The same, plain and unresolved."""
    reads: Reads
    layered: dict[tuple[str, ...], Mapping[str, Any]] = field(default_factory=dict)
    """Plain results by the overrides that Hydra's function has laid over it."""


class _Composer:
    def __init__(self, master: DictConfig, loader: ConfigLoader, *, keep: bool) -> None:
        self._master = master
        self._keep = keep
        self._loader = _remembering(loader)
        self._parser = OverridesParser.create()
        self._parsed: dict[str, _Asked] = {}
        self._is_group = lru_cache(maxsize=None)(self._loader.repository.group_exists)
        self._base: tuple[tuple[str, ...], _Base | HydraException | OmegaConfBaseException] | None = None
        self._splits: dict[tuple[Any, ...], tuple[bool, ...]] = {}

    def is_master(self, job: Job) -> bool:
        """Whether a sweep of this one job is the very config that Hydra started with. Where a group of the defaults
        list still has no option Hydra starts a sweep, and refuses a job.
        """
        choices = self._master.hydra.runtime.choices
        return list(job) == list(self._master.hydra.overrides.task) and "???" not in map(str, choices.values())

    def by_choices(self, jobs: Sequence[Job], *, by_hydra: bool) -> Iterable[_Jobs]:
        groups: dict[tuple[str, ...] | None, list[int]] = {}
        for number, job in enumerate(jobs):
            groups.setdefault(None if by_hydra else self._choices(job), []).append(number)
        return [_Jobs(choices, numbers) for choices, numbers in groups.items()]

    def _choices(self, job: Job) -> tuple[str, ...] | None:
        try:
            asked = [(one, self._asked(one).override) for one in job]
        except HydraException:
            return None  # Hydra says what cannot be read
        if any(override.is_hydra_override() or override.is_sweep_override() for _, override in asked):
            return None
        return tuple(text for text, override in asked if self._chooses(override))

    def _chooses(self, override: Override) -> bool:
        return not isinstance(override.value(), dict) and self._is_group(override.key_or_group)

    def compose(self, group: _Jobs, job: Job, number: int) -> Composed:
        """Raises Hydra's own error for the job."""
        if group.choices is None:
            return self._by_hydra(job, number)
        base = self._base_of(group.choices)
        if base.reads.impure:
            return self._by_hydra(job, number)
        values = [self._parsed[one] for one in job if one not in group.choices]
        try:
            node = self._node(base, values)
        except _FAILURES:
            return self._by_hydra(job, number)
        return Composed(node, base.choices, base.sets)

    def _by_hydra(self, job: Job, number: int) -> Composed:
        return self.described(self._loader.load_sweep_config(self._master, list(job)), number)

    def described(self, config: DictConfig, number: int) -> Composed:
        """A config as Hydra composes it for the job of this number, which it is given here."""
        with open_dict(config):
            config.hydra.job.id, config.hydra.job.num = str(number), number
        HydraConfig.instance().set_config(config)
        choices, sets = self._facts(config)
        job = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        try:
            return Composed(_plain(job), choices, sets, None, config if self._keep else None)
        except OmegaConfBaseException as error:
            return Composed(_unresolved(job), choices, sets, error, config if self._keep else None)

    def _facts(self, config: DictConfig) -> tuple[Mapping[str, Any], str | None]:
        choices = cast(dict[str, Any], OmegaConf.to_container(config.hydra.runtime.choices))
        plugins = ("sweeper", "launcher")
        return choices, next((one for one in plugins if self._master.hydra[one] != config.hydra[one]), None)

    def _base_of(self, choices: tuple[str, ...]) -> _Base:
        """Raises Hydra's error for the choices, which it finds before it looks at any value."""
        if self._base is None or self._base[0] != choices:
            try:
                self._base = choices, self._new_base(choices)
            except _HYDRAS as error:
                self._base = choices, error
            self._splits.clear()
        base = self._base[1]
        if isinstance(base, Exception):
            raise base
        return base

    def _new_base(self, choices: tuple[str, ...]) -> _Base:
        config = self._loader.load_sweep_config(self._master, list(choices))
        named, sets = self._facts(config)
        with open_dict(config):
            config.pop("hydra")
        raw = _unresolved(config)
        reads = Reads(impure=True) if _is_typed(config) else reads_of(raw)
        return _Base(config, named, sets, raw, reads)

    def _node(self, base: _Base, values: Sequence[_Asked]) -> Mapping[str, Any]:
        """Raises one of _FAILURES for what only Hydra can do, or refuses."""
        alone = self._split(base, values)
        node = self._layered(base, [one for one, plain in zip(values, alone, strict=True) if not plain])
        for one, plain in zip(values, alone, strict=True):
            if plain:
                assert one.sign is not None
                node = with_value(node, one.path, one.value, one.sign)
        return node

    def _split(self, base: _Base, values: Sequence[_Asked]) -> tuple[bool, ...]:
        """Of each override whether it is a plain value that nothing else has to do with."""
        shape = tuple((one.path, one.sign, one.reads, one.scope) for one in values)
        if shape not in self._splits:
            self._splits[shape] = _in_order(base.raw, values, _alone(base.reads, values))
        return self._splits[shape]

    def _layered(self, base: _Base, values: Sequence[_Asked]) -> Mapping[str, Any]:
        """The base with overrides laid over it as Hydra does it, resolved."""
        texts = tuple(str(one.override.input_line) for one in values)
        if (known := base.layered.get(texts)) is not None:
            return known
        if any(one.reads.impure for one in values):
            raise NotPlain
        config = copy.deepcopy(base.config) if values else base.config
        ConfigLoaderImpl._apply_overrides_to_config([one.override for one in values], config)
        if len(base.layered) == _MOST_LAYERED:
            base.layered.pop(next(iter(base.layered)))
        base.layered[texts] = _plain(config)
        return base.layered[texts]

    def _asked(self, text: str) -> _Asked:
        known = self._parsed.get(text)
        if known is None:
            known = self._parsed[text] = _take_apart(self._parser.parse_override(text))
        return known


def _take_apart(override: Override) -> _Asked:
    path, value = tuple(override.key_or_group.split(".")), override.value()
    plain = is_path(override.key_or_group) and override.package is None and _is_plain(value)
    sign = _SIGNS.get(override.type) if plain and override.type is not None else None
    moves = override.is_delete() and path[-1].isdecimal()
    return _Asked(override, path, sign, value, reads_of(value, path), path[:-1] if moves else path)


def _is_plain(value: Any) -> bool:
    """Whether omegaconf keeps a value as it is."""
    if isinstance(value, str):
        return "$" not in value and value != "???"
    return value is None or isinstance(value, bool | int | float)


def _alone(reads: Reads, values: Sequence[_Asked]) -> list[bool]:
    """Which overrides are plain values that no interpolation reads, and that neither lie in what another override sets
    nor hold it: their order among the others is no matter.
    """
    if reads.unknown or any(one.reads.unknown for one in values):
        return [False for _ in values]
    touched = [*reads.paths, *(path for one in values for path in one.reads.paths)]
    alone = []
    for index, one in enumerate(values):
        others = [other.scope for number, other in enumerate(values) if number != index]
        meets = any(related(one.path, path) for path in (*touched, *others))
        # Below an interpolation it is set in what that stands for.
        below = any(len(place) < len(one.path) and related(one.path, place) for place in reads.places)
        alone.append(one.sign is not None and not meets and not below)
    return alone


def _in_order(raw: Mapping[str, Any], values: Sequence[_Asked], alone: Sequence[bool]) -> tuple[bool, ...]:
    """A new key goes to the end of its mapping. One that comes before a new key of the same mapping which Hydra's
    function sets is set by that, too: the keys keep their order.
    """
    ordered, later = list(alone), set[Path]()
    for index in reversed(range(len(values))):
        grows = _grows(raw, values[index].path)
        if grows in later:
            ordered[index] = False
        if not ordered[index] and grows is not None:
            later.add(grows)
    return tuple(ordered)


def _grows(raw: Any, path: Path) -> Path | None:
    """The mapping that setting a value gives a new key; None where the value is there already."""
    for depth, name in enumerate(path):
        if isinstance(raw, list) and name.isdecimal() and int(name) < len(raw):
            raw = raw[int(name)]
        elif isinstance(raw, dict) and name in raw:
            raw = raw[name]
        else:
            return path[:depth]
    return None


def _plain(config: DictConfig) -> dict[str, Any]:
    plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _unresolved(config: DictConfig) -> dict[str, Any]:
    plain = OmegaConf.to_container(config, resolve=False)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _is_typed(node: Any) -> bool:
    """Whether any part has a schema, which converts and refuses values."""
    if not isinstance(node, DictConfig | ListConfig):
        return False
    if node._metadata.object_type not in (dict, list, None) or node._metadata.element_type is not Any:
        return True
    if node._is_none() or node._is_missing() or node._is_interpolation():
        return False
    keys: Iterable[Any] = node.keys() if isinstance(node, DictConfig) else range(len(node))
    return any(_is_typed(node._get_node(key)) for key in keys)


def _remembering(loader: ConfigLoader) -> ConfigLoaderImpl:
    """The same loader, which reads each config file once."""
    assert isinstance(loader, ConfigLoaderImpl)
    remembering = copy.copy(loader)
    remembering.repository = _Repository(loader.config_search_path)
    return remembering


class _Repository(ConfigRepository):
    """Hydra's, with what it has read remembered across its copies: Hydra makes one for each job that it composes."""

    def __init__(self, config_search_path: ConfigSearchPath) -> None:
        super().__init__(config_search_path)

    def initialize_sources(self, config_search_path: ConfigSearchPath) -> None:
        super().initialize_sources(config_search_path)  # a config may name other places to look in
        self._read: dict[str, ConfigResult | None] = {}

    def load_config(self, config_path: str) -> ConfigResult | None:
        """A copy: Hydra hangs what it is given into the config that it makes."""
        if config_path not in self._read:
            self._read[config_path] = super().load_config(config_path)
        return copy.deepcopy(self._read[config_path])

    def __deepcopy__(self, memo: dict[int, Any]) -> _Repository:
        other = copy.copy(self)
        other.sources = list(self.sources)
        return other
