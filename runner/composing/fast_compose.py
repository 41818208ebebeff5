"""A sweep's jobs -> plain configs, equal to Hydra's own for each job.

Hydra composes a job in tens of milliseconds, most of them spent on what a sweep's jobs share: config files, defaults
lists, group choices. So each distinct set of group choices is composed once, and each job's values are set in the
result (shared_config.py). A job for which this is not possible is left to Hydra, and so are all errors.
tests/runner/test_fast_compose.py checks that both are equal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from runner.composing.config_parts import copied
from runner.composing.hydra_inside import CachingLoader, plain, show_to_resolvers
from runner.composing.job_overrides import JobOverride, another_number, parsed
from runner.composing.shared_config import CANNOT_SET, HYDRA_ERRORS, SharedConfig, SharedConfigs

Job = Sequence[str]
Choices = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ComposedJob:
    """One job. It may share subtrees with other jobs, so they must not be changed."""

    node: Mapping[str, Any]
    """Everything but Hydra's own node, resolved and plain; unresolved where it cannot be resolved."""
    choices: Mapping[str, Any]
    """The groups' options."""
    sets: str | None
    """`sweeper` or `launcher`, if the job sets it differently from the config that the sweep started with."""
    unresolved: OmegaConfBaseException | None = None
    config: DictConfig | None = None
    """As Hydra has it, where that was requested."""


def compose_all(
    master: DictConfig,
    jobs: Sequence[Job],
    loader: ConfigLoader,
    first: int = 0,
    *,
    by_hydra: bool = False,
    composer: Composer | None = None,
) -> list[ComposedJob | Exception]:
    """Each job, numbered from `first`, or Hydra's (or omegaconf's) error for it. `by_hydra`: with its `config`.

    `master` is the config that Hydra started the sweep with. The jobs of one set of group choices are composed
    one after another, so that memory does not grow with the number of sets; a `composer` that is used again for
    further jobs remembers the sets.
    """
    composer = composer or Composer(master, loader, keep=by_hydra)
    if len(jobs) == 1 and not by_hydra and composer.is_master(jobs[0]):
        return [composer.described(copied(master), first)]
    found: dict[int, ComposedJob | Exception] = {}
    for choices, numbers in composer.by_choices(jobs, by_hydra=by_hydra).items():
        shared = composer.shared_by(choices)
        for number in numbers:
            try:
                found[number] = composer.compose(shared, choices or (), jobs[number], first + number)
            except HYDRA_ERRORS as error:
                found[number] = error
    return [found[number] for number in range(len(jobs))]


class Composer:
    def __init__(self, master: DictConfig, loader: ConfigLoader, *, keep: bool = False, remember: bool = False) -> None:
        """`keep`: the configs as Hydra has them. `remember`: what the jobs of each set of choices share."""
        self._master = master
        self._keep = keep
        self._loader = loader if isinstance(loader, CachingLoader) else CachingLoader(loader)
        self._configs = SharedConfigs(master, self._loader)
        self._parser = OverridesParser.create()
        self._parsed: dict[str, JobOverride] = {}
        self._newest: dict[str, JobOverride] = {}
        """By what is left of =."""
        self._remembered: dict[Choices, SharedConfig | Exception | None] | None = {} if remember else None
        self._is_group = lru_cache(maxsize=None)(self._loader.repository.group_exists)

    def is_master(self, job: Job) -> bool:
        """Whether a sweep of this one job is the very config that Hydra started with. If a group of the defaults
        list has no option yet, Hydra starts a sweep, but refuses a job.
        """
        choices = self._master.hydra.runtime.choices
        return list(job) == list(self._master.hydra.overrides.task) and "???" not in map(str, choices.values())

    def by_choices(self, jobs: Sequence[Job], *, by_hydra: bool) -> Mapping[Choices | None, Sequence[int]]:
        """The jobs' numbers by their group choices; None for those that are left to Hydra."""
        # With a search path of its own, only Hydra knows what is a group.
        by_hydra = by_hydra or bool(self._master.hydra.searchpath)
        numbers: dict[Choices | None, list[int]] = {}
        for number, job in enumerate(jobs):
            numbers.setdefault(None if by_hydra else self._choices(job), []).append(number)
        return numbers

    def _choices(self, job: Job) -> Choices | None:
        try:
            overrides = [(one, self._parse(one).override) for one in job]
        except HydraException:
            return None  # Hydra reports what cannot be read
        if any(override.is_hydra_override() or override.is_sweep_override() for _, override in overrides):
            return None
        choices = [(text, override.key_or_group) for text, override in overrides if self._chooses(override)]
        if len({group for _, group in choices}) < len(choices):
            return None  # a group is chosen twice in one job: Hydra decides which choice wins
        return tuple(text for text, _ in choices)

    def _chooses(self, override: Override) -> bool:
        return not isinstance(override.value(), dict) and self._is_group(override.key_or_group)

    def shared_by(self, choices: Choices | None) -> SharedConfig | Exception | None:
        """What jobs of these choices share, or Hydra's error for the choices; None where Hydra composes each job."""
        if choices is None:
            return None
        if self._remembered is None:
            return self._shared_by(choices)
        if choices not in self._remembered:
            self._remembered[choices] = self._shared_by(choices)
        return self._remembered[choices]

    def _shared_by(self, choices: Choices) -> SharedConfig | Exception | None:
        try:
            config = self._configs.shared_by([self._parsed[one].override for one in choices])
        except HYDRA_ERRORS as error:
            return error
        return None if config.reads.impure else config

    def compose(self, shared: SharedConfig | Exception | None, choices: Choices, job: Job, number: int) -> ComposedJob:
        """Raises Hydra's own error for the job."""
        if isinstance(shared, Exception):
            raise shared
        if shared is None:
            return self._by_hydra(job, number)
        values = [self._parsed[one] for one in job if one not in choices]
        try:
            node = shared.with_values(values)
        except CANNOT_SET:
            return self._by_hydra(job, number)
        return ComposedJob(node, shared.choices, shared.sets)

    def _by_hydra(self, job: Job, number: int) -> ComposedJob:
        return self.described(self._loader.load_sweep_config(self._master, list(job)), number)

    def described(self, config: DictConfig, number: int) -> ComposedJob:
        """A config that Hydra has composed, as the job with this number. Hydra's own node is taken out of it, unless
        configs are kept."""
        with open_dict(config), read_write(config.hydra):  # Hydra 1.4 makes read-only what it starts a sweep with
            config.hydra.job.id, config.hydra.job.num = str(number), number
        choices, sets = self._configs.facts(config)
        if self._keep:
            HydraConfig.instance().set_config(config)
        kept = config if self._keep else None
        job = copied(config) if self._keep else config
        with open_dict(job):
            node = job.pop("hydra")
        if not self._keep:
            show_to_resolvers(node, job)
        try:
            return ComposedJob(plain(job, resolve=True), choices, sets, None, kept)
        except OmegaConfBaseException as error:
            return ComposedJob(plain(job, resolve=False), choices, sets, error, kept)

    def _parse(self, text: str) -> JobOverride:
        known = self._parsed.get(text)
        if known is None:
            head = text.partition("=")[0]
            like = self._newest.get(head)
            known = another_number(like, text) if like is not None else None
            known = known or parsed(self._parser.parse_override(text))
            self._parsed[text] = self._newest[head] = known
        return known
