"""Every use of Hydra's internals: its public API does not cover the way from a file to a composed config.

Hydra 1.3 and 1.4 have all of them. tests/runner/test_fast_compose.py runs on both.
"""

from __future__ import annotations

import copy
import functools
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hydra._internal import defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository, IConfigRepository
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.core_plugins.importlib_resources_config_source import ImportlibResourcesConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigNode, ConfigStore
from hydra.core.default_element import InputDefault, ResultDefault
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.types import ChoiceSweep, Override, RangeSweep, Transformer
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.types import RunMode, TaskFunction
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from runner.composing.config_parts import MergedParts, Part, ReadFile, pickled
from runner.config.project import SWEEPS, SWEEPS_PROVIDER
from runner.errors import SweepError


def apply_overrides(overrides: Sequence[Override], config: DictConfig) -> None:
    """Set the values of overrides in a config, in order, as Hydra does for a job. Raises what Hydra raises."""
    ConfigLoaderImpl._apply_overrides_to_config(list(overrides), config)


def plain(config: Any, *, resolve: bool) -> dict[str, Any]:
    """The config as a dict, its interpolations resolved or as they are written."""
    container = OmegaConf.to_container(config, resolve=resolve, throw_on_missing=resolve)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def multirun(config_name: str, overrides: Sequence[str], task: TaskFunction) -> None:
    """What --multirun does, in the Hydra that has been initialized, with a loader that the whole command shares."""
    application = GlobalHydra.instance().hydra
    assert application is not None
    application.config_loader = CachingLoader(application.config_loader)
    application.multirun(config_name, task, [*overrides, "hydra.mode=MULTIRUN"])


def show_to_resolvers(node: DictConfig, config: DictConfig) -> None:
    """What `${hydra:...}` and HydraConfig.get() read: Hydra's own node, in a config or taken out of it.
    HydraConfig.set_config() copies the node first, which takes a tenth of the time of a command.
    """
    OmegaConf.set_readonly(node, True)
    HydraConfig.instance().cfg = DictConfig({"hydra": node}, flags={"no_deepcopy_set_nodes": True})  # type: ignore[assignment]
    node._set_parent(config)


def is_about_a_plugin(error: Exception) -> bool:
    """Whether an error comes from Hydra's search for a sweeper or launcher: it has no type of its own."""
    frames = [frame.f_globals.get("__name__") for frame, _ in traceback.walk_tb(error.__traceback__)]
    return Plugins.__module__ in frames


def unreadable_file(error: Exception) -> str | None:
    """The config file that Hydra was reading when it raised an error that does not name it; None if it read none."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    reading = [frame for frame in frames if frame.f_code is ConfigRepository.load_config.__code__]
    return f"{reading[-1].f_locals['config_path']}.yaml" if reading else None


def circular_files(error: RecursionError) -> list[str]:
    """The config files whose defaults lists name each other in a circle; none for another error."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    lists = [frame.f_locals for frame in frames if frame.f_code is defaults_list._create_defaults_tree_impl.__code__]
    read = [f"{one['path']}.yaml" for one in lists if "path" in one]
    return sorted({file for file in read if read.count(file) > 1})


def refused_override(error: ValueError) -> str | None:
    """What Hydra was reading when it raised an error that does not name it: an override, or its search path."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code is defaults_list.Overrides.__init__.__code__:
            return str(frame.f_locals["override"].input_line)
        if frame.f_code is SourcesRegistry.resolve.__code__:
            return "hydra.searchpath"
    return None


def values_of(override: Override) -> list[tuple[Any, str]]:
    """Each value of a swept override, plain and in Hydra's grammar. shuffle() shuffles them again at each call."""
    return [(Override._convert_value(one), Transformer.str(one)) for one in override.sweep_iterator()]


def unshuffled(override: Override) -> Override:
    """Without the effect of shuffle()."""
    value = override._value
    if isinstance(value, ChoiceSweep | RangeSweep) and value.shuffle:
        return replace(override, _value=replace(value, shuffle=False))
    return override


def with_number(override: Override, value: float, text: str) -> Override:
    """An override of a number with another one; `text` is the complete override."""
    other = object.__new__(Override)  # a quarter of the time of copy.copy()
    other.__dict__.update(override.__dict__, _value=value, input_line=text)
    return other


HYDRA = "hydra"
"""The provider of Hydra's own files."""
PLUGINS = ("sweeper", "launcher")
"""The parts of Hydra's own node that are fixed once a sweep has started."""


@dataclass(frozen=True, slots=True)
class WithoutHydra:
    """A composed config, without Hydra's own node."""

    config: DictConfig
    choices: Mapping[str, Any]
    """The groups' options, Hydra's own among them."""
    plugins: str
    """What decides Hydra's PLUGINS: the files of its own node, and what other files set in it."""
    set_by: Sequence[ResultDefault]
    """All files that set something in Hydra's own node, in order."""


class CachingLoader(ConfigLoaderImpl):
    """Hydra's loader, which reads each config file once."""

    repository: CachingRepository
    _composed: Sequence[ResultDefault] = ()
    """The files of the newest config."""
    _of_sweep: Sequence[ResultDefault] | None = None
    """The files of the config that a sweep has started with."""

    def __init__(self, loader: ConfigLoader) -> None:
        assert isinstance(loader, ConfigLoaderImpl)
        super().__init__(loader.config_search_path)
        if isinstance(loader.repository, CachingRepository):
            self.repository = loader.repository
        else:
            self.repository = CachingRepository(loader.config_search_path)

    def _load_configuration_impl(
        self, config_name: str | None, overrides: list[str], run_mode: RunMode, *args: Any, **options: Any
    ) -> DictConfig:
        """Hydra 1.4 starts a sweep without `load_configuration`."""
        with _interpolation_maps_on_demand():
            config = super()._load_configuration_impl(config_name, overrides, run_mode, *args, **options)
        if run_mode is RunMode.MULTIRUN:
            self._of_sweep = self._composed
        return config

    def load_without_hydra(self, master: DictConfig, overrides: Sequence[Override]) -> WithoutHydra:
        """Group choices, composed as a job of the sweep that started with `master`, without Hydra's own files. Raises
        an error if Hydra would, though not always with the same message.
        """
        with _interpolation_maps_on_demand():
            found = defaults_list.create_defaults_list(
                self.repository, master.hydra.job.config_name, list(overrides), prepend_hydra=True, skip_missing=False
            )
        own = [one for one in found.defaults if _is_of_hydra(one)]
        config = self._compose_config_from_defaults_list(
            [one for one in found.defaults if not _is_of_hydra(one)], self.repository
        )
        OmegaConf.set_struct(config, True)
        OmegaConf.copy_cache(from_config=master, to_config=config)
        node = plain(OmegaConf.masked_copy(config, [key for key in config if key == "hydra"]), resolve=False).get(
            "hydra"
        )
        plugins = {name: node.get(name) for name in PLUGINS} if isinstance(node, dict) else node
        with open_dict(config):
            config.pop("hydra", None)
        return WithoutHydra(config, found.overrides.known_choices, f"{own} {plugins}", self._set_hydra(found.defaults))

    def files_of_hydra(self) -> Sequence[ResultDefault] | None:
        """Those that set something in Hydra's own node of the config that the sweep has started with, in order; None if
        another loader has composed it.
        """
        return None if self._of_sweep is None else self._set_hydra(self._of_sweep)

    def _set_hydra(self, files: Sequence[ResultDefault]) -> Sequence[ResultDefault]:
        return [one for one in files if _is_of_hydra(one) or self._part(one, self.repository).sets_hydra]

    def _compose_config_from_defaults_list(self, defaults: list[ResultDefault], repo: IConfigRepository) -> DictConfig:
        self._composed = defaults
        try:
            same, config = _MERGED.beginning([self._part(one, repo) for one in defaults])
        except (HydraException, OmegaConfBaseException):
            return super()._compose_config_from_defaults_list(defaults, repo)  # which raises the error, in its words
        return super()._compose_config_from_defaults_list([_Merged(config), *defaults[same:]], repo)

    def _load_single_config(self, default: ResultDefault, repo: IConfigRepository) -> ConfigResult:
        if isinstance(default, _Merged):
            return ConfigResult(provider="", path="", config=default.merged, header={})
        return self._part(default, repo).copied()

    def _part(self, default: ResultDefault, repo: IConfigRepository) -> Part:
        """What a file adds, as this repository has it: a job that Hydra composes may have its own search path."""
        assert default.config_path is not None
        read = repo.load_config(default.config_path)
        if not isinstance(read, ReadFile) or not _is_all(read, default.config_path, repo):
            return Part(super()._load_single_config(default, repo))
        key = (default.package, default.primary)
        if key not in read.parts:
            read.parts[key] = Part(super()._load_single_config(default, repo))
        return read.parts[key]


class _Merged(ResultDefault):
    """Stands in a defaults list for the files that come first. Hydra merges it into an empty config, so that no value
    of a resolver, such as the time, is left of an earlier command.
    """

    def __init__(self, merged: DictConfig) -> None:
        super().__init__()
        self.merged = merged


_MERGED = MergedParts()
"""Of the files that this process has read."""


def _is_all(read: ConfigResult, config_path: str, repo: IConfigRepository) -> bool:
    """Whether a file's part depends on nothing else: a schema of its name may change what is read."""
    return read.is_schema_source or not repo.get_schema_source().is_config(config_path)


def _is_of_hydra(default: ResultDefault) -> bool:
    return str(default.package).partition(".")[0] == "hydra"


class SweepFiles(FileConfigSource):
    """A folder that is on the search path for its folder sweeps/ alone: another one in it, such as `store` or `json`,
    is no config group, and `store=DIR` chooses none of its files.
    """

    def is_group(self, config_path: str) -> bool:
        return config_path == SWEEPS and super().is_group(config_path)

    def is_config(self, config_path: str) -> bool:
        return config_path.startswith(f"{SWEEPS}/") and super().is_config(config_path)

    def available(self) -> bool:
        return self.is_group(SWEEPS)


@functools.cache
def _hydras_files(provider: str, path: str) -> ConfigSource:
    """Hydra's own files, which do not change. They are first on the search path, so each file and group of a command is
    looked for among them, and finding their package takes longer than anything else about it.
    """
    source = ImportlibResourcesConfigSource(provider, path)
    source.is_group, source.is_config = functools.cache(source.is_group), functools.cache(source.is_config)  # type: ignore[method-assign]
    return source


class CachingRepository(ConfigRepository):
    """Caches across its copies: Hydra makes one for each job that it composes."""

    def initialize_sources(self, config_search_path: ConfigSearchPath) -> None:
        super().initialize_sources(config_search_path)  # a config may change the search path
        kinds: dict[str, Callable[[str, str], ConfigSource]] = {SWEEPS_PROVIDER: SweepFiles, HYDRA: _hydras_files}
        self.sources = [
            kinds[one.provider](one.provider, one.full_path()) if one.provider in kinds else one for one in self.sources
        ]
        self._read: dict[str, ConfigResult | None] = {}

    def load_config(self, config_path: str) -> ConfigResult | None:
        """One file, shared by all that read it."""
        if config_path not in self._read:
            self._read[config_path] = self._load(config_path)
        return self._read[config_path]

    def _load(self, config_path: str) -> ConfigResult | None:
        """As it is now. What an earlier command of this process has parsed is copied unless it has changed."""
        source = self._find_object_source(config_path, ObjectType.CONFIG)
        stamp = _stamp(source, config_path) if source is not None else None
        if source is None or stamp is None:
            return super().load_config(config_path)
        key = (source.provider, source.path, config_path)
        known = _PARSED.get(key)
        if known is None or known.stamp != stamp:
            read = super().load_config(config_path)
            assert read is not None
            if isinstance(read.config, DictConfig) and read.config.get("hydra", {}) is None:
                raise SweepError(f"The config file {config_path}.yaml has `hydra:` without a value. Remove it.")
            if (stored := pickled(read.config)) is None:
                return read
            known = _PARSED[key] = _ParsedFile(stamp, read, stored)
        return ReadFile(known.read, known.config, known.parts)

    def __deepcopy__(self, memo: dict[int, Any]) -> CachingRepository:
        other = copy.copy(self)
        other.sources = list(self.sources)
        return other


@dataclass(frozen=True, slots=True)
class _ParsedFile:
    stamp: Stamp
    read: ConfigResult
    config: bytes
    """Pickled."""
    parts: dict[tuple[str | None, bool], Part] = field(default_factory=dict)


_PARSED: dict[tuple[str, str, str], _ParsedFile] = {}
"""The files that this process has read."""


def _stamp(source: ConfigSource, config_path: str) -> Stamp | None:
    """Differs once the file, or the schema, is another one; None for what cannot be looked up like that."""
    if source.scheme() == "pkg":
        return (0, 0) if source.provider == HYDRA else None
    name = source._normalize_file_name(config_path)
    if source.scheme() == "structured":
        return _Schema(ConfigStore.instance()._load(name))
    if source.scheme() != "file":
        return None
    seen = Path(source.path.removeprefix("file://"), name).stat()
    return seen.st_mtime_ns, seen.st_size


@dataclass(frozen=True, slots=True, eq=False)
class _Schema:
    """What a program has registered under a name, which it may do again."""

    node: ConfigNode

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Schema) and other.node is self.node


Stamp = tuple[int, int] | _Schema


@contextmanager
def _interpolation_maps_on_demand() -> Iterator[None]:
    """For each file of a defaults list Hydra 1.3 makes an omegaconf config of all choices, which takes a quarter of
    its time. Only interpolations in the list read that; 1.4 makes it for them alone.
    """
    original = getattr(defaults_list, "_create_interpolation_map", None)
    if original is None:
        yield
        return

    def on_demand(overrides: Any, defaults: Sequence[InputDefault], self_added: bool) -> DictConfig | None:
        is_read = any(one.is_interpolation() for one in defaults)
        return original(overrides, defaults, self_added) if is_read else None

    defaults_list._create_interpolation_map = on_demand  # type: ignore[assignment]
    try:
        yield
    finally:
        defaults_list._create_interpolation_map = original


def is_typed(node: Any) -> bool:
    """Whether any part has a schema, which converts and refuses values."""
    if not isinstance(node, DictConfig | ListConfig):
        return False
    if node._metadata.object_type not in (dict, list, None) or node._metadata.element_type is not Any:
        return True
    if node._is_none() or node._is_missing() or node._is_interpolation():
        return False
    keys: Iterable[Any] = node.keys() if isinstance(node, DictConfig) else range(len(node))
    return any(is_typed(node._get_node(key)) for key in keys)
