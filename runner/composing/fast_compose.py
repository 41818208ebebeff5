"""A sweep's jobs -> plain configs, equal to Hydra's own for each job.

Hydra composes a job in tens of milliseconds, most of them spent on what a sweep's jobs share: config files, defaults
lists, group choices. So each distinct set of group choices is composed once (bases.py), Hydra's own function lays
over it what interpolations may read, and a plain value that none reads is set in a copy of the plain result. Whatever
this cannot do for a job is left to Hydra, its errors among them. tests/runner/test_fast_compose.py holds both equal.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from runner.composing.bases import Base, Bases
from runner.composing.hydra_inside import RememberingLoader, plain
from runner.composing.job_overrides import Asked, alone, in_order, take_apart
from runner.composing.plain_values import NotPlain, with_value

Job = Sequence[str]

_HYDRAS = (HydraException, OmegaConfBaseException)
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
class _Jobs:
    """Jobs with the same group choices; `choices` is None for those that are left to Hydra."""

    choices: tuple[str, ...] | None
    jobs: list[int]


class _Composer:
    def __init__(self, master: DictConfig, loader: ConfigLoader, *, keep: bool) -> None:
        self._master = master
        self._keep = keep
        self._loader = RememberingLoader(loader)
        self._bases = Bases(master, self._loader)
        self._parser = OverridesParser.create()
        self._parsed: dict[str, Asked] = {}
        self._is_group = lru_cache(maxsize=None)(self._loader.repository.group_exists)
        self._base: tuple[tuple[str, ...], Base | HydraException | OmegaConfBaseException] | None = None
        self._splits: dict[tuple[Any, ...], tuple[bool, ...]] = {}

    def is_master(self, job: Job) -> bool:
        """Whether a sweep of this one job is the very config that Hydra started with. Where a group of the defaults
        list still has no option Hydra starts a sweep, and refuses a job.
        """
        choices = self._master.hydra.runtime.choices
        return list(job) == list(self._master.hydra.overrides.task) and "???" not in map(str, choices.values())

    def by_choices(self, jobs: Sequence[Job], *, by_hydra: bool) -> Iterable[_Jobs]:
        # With places of its own to look in, what is a group is known to Hydra alone.
        by_hydra = by_hydra or bool(self._master.hydra.searchpath)
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
        choices = [(text, override.key_or_group) for text, override in asked if self._chooses(override)]
        if len({group for _, group in choices}) < len(choices):
            return None  # a group chosen twice in one job: which choice is looked up and which wins is Hydra's to say
        return tuple(text for text, _ in choices)

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
        with open_dict(config), read_write(config.hydra):  # Hydra 1.4 lets nobody change what it starts a sweep with
            config.hydra.job.id, config.hydra.job.num = str(number), number
        HydraConfig.instance().set_config(config)
        choices, sets = self._bases.facts(config)
        job = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        try:
            return Composed(plain(job, resolve=True), choices, sets, None, config if self._keep else None)
        except OmegaConfBaseException as error:
            return Composed(plain(job, resolve=False), choices, sets, error, config if self._keep else None)

    def _base_of(self, choices: tuple[str, ...]) -> Base:
        """Raises Hydra's error for the choices, which it finds before it looks at any value."""
        if self._base is None or self._base[0] != choices:
            try:
                self._base = choices, self._bases.base([self._parsed[one].override for one in choices])
            except _HYDRAS as error:
                self._base = choices, error
            self._splits.clear()
        base = self._base[1]
        if isinstance(base, Exception):
            raise base
        return base

    def _node(self, base: Base, values: Sequence[Asked]) -> Mapping[str, Any]:
        """Raises one of _FAILURES for what only Hydra can do, or refuses."""
        last = self._split(base, values)
        node = base.laid_over([one for one, is_last in zip(values, last, strict=True) if not is_last])
        for one, is_last in zip(values, last, strict=True):
            if is_last:
                assert one.sign is not None
                node = with_value(node, one.path, one.value, one.sign)
        return node

    def _split(self, base: Base, values: Sequence[Asked]) -> tuple[bool, ...]:
        """Of each override whether it is a plain value that nothing else has to do with."""
        shape = tuple((one.path, one.override.type, one.sign, one.reads) for one in values)
        if shape not in self._splits:
            self._splits[shape] = in_order(base.raw, values, alone(base.reads, values))
        return self._splits[shape]

    def _asked(self, text: str) -> Asked:
        known = self._parsed.get(text)
        if known is None:
            known = self._parsed[text] = take_apart(self._parser.parse_override(text))
        return known
