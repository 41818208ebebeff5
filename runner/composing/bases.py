"""What the jobs of one set of group choices have in common: composed by Hydra, or merged as Hydra has merged another.

Two sets that differ in options alone are merged from the same list of files, one or two of them exchanged, so long as
those say nothing but values. Such a list is learned from what Hydra composes, and used only where merging it as plain
dicts gives what Hydra gave.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from hydra.core.default_element import ResultDefault
from hydra.core.override_parser.types import Override, OverrideType
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig, OmegaConf, open_dict

from runner.composing.hydra_inside import RememberingLoader, apply_overrides, is_typed, plain
from runner.composing.interpolations import Reads, reads_of
from runner.composing.job_overrides import Asked
from runner.composing.plain_values import NotPlain, merged, parts_at, with_parts

_MOST_LAYERED = 256
_MOST_TEMPLATES = 64

ToOmegaconf = Callable[[Mapping[str, Any]], DictConfig]


@dataclass(slots=True)
class Base:
    """A config that values can be laid over, without Hydra's own node."""

    raw: Mapping[str, Any]
    """Plain and unresolved."""
    reads: Reads
    choices: Mapping[str, Any]
    """The groups' options, as Hydra keeps them."""
    sets: str | None
    """`sweeper` or `launcher`, where a choice says something else of it than the sweep did when it started."""
    to_omegaconf: ToOmegaconf
    config: DictConfig | None = None
    """`raw` as omegaconf has it, where that was needed: it is slow to make."""
    _layered: dict[tuple[str, ...], Mapping[str, Any]] = field(default_factory=dict)

    def laid_over(self, values: Sequence[Asked]) -> Mapping[str, Any]:
        """Plain and resolved, with overrides laid over it by Hydra's own function. Raises what that raises, and
        NotPlain for what may be another value in each job.
        """
        texts = tuple(str(one.override.input_line) for one in values)
        if (known := self._layered.get(texts)) is not None:
            return known
        made = self._with(values) if values else self._resolved()
        if len(self._layered) == _MOST_LAYERED:
            self._layered.pop(next(iter(self._layered)))
        self._layered[texts] = made
        return made

    def _with(self, values: Sequence[Asked]) -> Mapping[str, Any]:
        if any(one.reads.impure for one in values):
            raise NotPlain
        if self.config is None:
            self.config = self.to_omegaconf(self.raw)
        config = copy.deepcopy(self.config)
        apply_overrides([one.override for one in values], config)
        return plain(config, resolve=True)

    def _resolved(self) -> Mapping[str, Any]:
        """omegaconf is given what interpolations are written in and read, and no more: most of a config is values."""
        if self.reads.unknown:
            return plain(self.config or self.to_omegaconf(self.raw), resolve=True)
        part = parts_at(self.raw, [*self.reads.places, *self.reads.paths])
        made: dict[str, Any] = with_parts(self.raw, plain(self.to_omegaconf(part), resolve=True))
        return made


@dataclass(frozen=True, slots=True)
class _File:
    """A config file as it goes into a base."""

    path: str
    package: str
    content: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Template:
    """The files of a base, in order."""

    files: tuple[_File, ...]
    base: Base


class Bases:
    """`master` is the config that the sweep started with."""

    def __init__(self, master: DictConfig, loader: RememberingLoader) -> None:
        self._master = master
        self._loader = loader
        self._first: dict[tuple[str, ...], tuple[Sequence[ResultDefault], Base]] = {}
        """What to learn a template from, when a second set of choices asks for it: most sweeps have one set."""
        self._templates: dict[tuple[str, ...], _Template | None] = {}
        plugins = [plain(master.hydra[name], resolve=False) for name in ("sweeper", "launcher")]
        self._may_learn = "${" not in str(plugins)

    def facts(self, config: DictConfig) -> tuple[Mapping[str, Any], str | None]:
        """`choices` and `sets` of a config as Hydra composes it."""
        choices = cast(dict[str, Any], OmegaConf.to_container(config.hydra.runtime.choices))
        plugins = ("sweeper", "launcher")
        return choices, next((one for one in plugins if self._master.hydra[one] != config.hydra[one]), None)

    def base(self, choices: Sequence[Override]) -> Base:
        """Raises Hydra's error for the choices, which it finds before it looks at any value."""
        exchanged = {one.key_or_group: f"{one.key_or_group}/{one.value()}" for one in choices if self._says_values(one)}
        shape = tuple(one.key_or_group if one.key_or_group in exchanged else str(one.input_line) for one in choices)
        template = self._template(shape)
        if template is not None and (made := self._merged(template, exchanged)) is not None:
            return made
        base = self._by_hydra(choices)
        if self._may_learn and len(self._first) < _MOST_TEMPLATES:
            self._first.setdefault(shape, (self._loader.merged, base))
        return base

    def _template(self, shape: tuple[str, ...]) -> _Template | None:
        if shape in self._first and shape not in self._templates:
            self._templates[shape] = self._learned(*self._first[shape])
        return self._templates.get(shape)

    def _by_hydra(self, choices: Sequence[Override]) -> Base:
        config = self._loader.load_sweep_config(self._master, [str(one.input_line) for one in choices])
        named, sets = self.facts(config)
        with open_dict(config):
            config.pop("hydra")
        raw = plain(config, resolve=False)
        reads = Reads(impure=True) if is_typed(config) else reads_of(raw)
        return Base(raw, reads, named, sets, self._to_omegaconf, config)

    def _to_omegaconf(self, raw: Mapping[str, Any]) -> DictConfig:
        config = OmegaConf.create(dict(raw))
        OmegaConf.set_struct(config, True)
        OmegaConf.copy_cache(from_config=self._master, to_config=config)
        return config

    def _says_values(self, choice: Override) -> bool:
        """Whether the option's file may be exchanged for another of the group: it chooses nothing itself, and has
        nothing to do with Hydra.
        """
        option = choice.value()
        if choice.type is not OverrideType.CHANGE or choice.package is not None or not isinstance(option, str):
            return False
        path = f"{choice.key_or_group}/{option}"
        result = self._loader.repository.read(path)
        if (
            result is None
            or result.defaults_list
            or not isinstance(result.config, DictConfig)
            or is_typed(result.config)
        ):
            return False
        about_hydra = str(result.header["package"]).startswith("hydra") or "hydra" in result.config
        return not about_hydra and not self._loader.repository.has_schema(path)

    def _learned(self, parts: Sequence[ResultDefault], base: Base) -> _Template | None:
        try:
            files = self._files(parts)
            same = files is not None and json.dumps(_merged(files), default=str) == json.dumps(base.raw, default=str)
        except NotPlain:
            return None
        return _Template(files, base) if files and same and not base.reads.impure else None

    def _files(self, parts: Sequence[ResultDefault]) -> tuple[_File, ...] | None:
        """None where what one file chooses may depend on another choice."""
        files = []
        for part in parts:
            result = None if part.config_path is None else self._loader.repository.read(part.config_path)
            if result is None or _may_vary(result):
                return None
            package = str(result.header["package"] or "") if part.package is None else part.package
            if package.partition(".")[0] != "hydra":
                files.append(_File(str(part.config_path), package, _content(result, package)))
        return tuple(files)

    def _merged(self, template: _Template, exchanged: Mapping[str, str]) -> Base | None:
        """None for what only Hydra can merge."""
        try:
            raw = _merged(self._exchanged(template, exchanged))
        except NotPlain:
            return None
        options = {group: path.removeprefix(f"{group}/") for group, path in exchanged.items()}
        choices = {**template.base.choices, **options}
        return Base(raw, reads_of(raw), choices, template.base.sets, self._to_omegaconf)

    def _exchanged(self, template: _Template, exchanged: Mapping[str, str]) -> Sequence[_File]:
        files = list(template.files)
        for group, path in exchanged.items():
            before = f"{group}/{template.base.choices.get(group)}"
            places = [index for index, file in enumerate(files) if file.path == before]
            old, new = self._loader.repository.read(before), self._loader.repository.read(path)
            if len(places) != 1 or old is None or new is None or old.header != new.header:
                raise NotPlain
            package = files[places[0]].package
            files[places[0]] = _File(path, package, _content(new, package))
        return files


def _may_vary(result: ConfigResult) -> bool:
    """Whether what a file chooses depends on what is chosen elsewhere."""
    return any("${" in str(vars(one)) for one in result.defaults_list or ())


def _content(result: ConfigResult, package: str) -> Mapping[str, Any]:
    """Where it belongs. Of Hydra's own node nothing: that is the same in all bases made of a template."""
    content: dict[str, Any] = plain(result.config, resolve=False)
    if not package:
        content.pop("hydra", None)
        return content
    if not re.fullmatch(r"[\w-]+(\.[\w-]+)*", package):
        raise NotPlain
    for name in reversed(package.split(".")):
        content = {name: content}
    return content


def _merged(files: Sequence[_File]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for file in files:
        made = merged(made, file.content)
    return made
