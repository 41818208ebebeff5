"""What is used of Hydra's inside: nothing outside does what Hydra does between a file and a composed config.

Two lines of Hydra have it all: 1.3 and 1.4. tests/runner/test_fast_compose.py runs on both.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository, IConfigRepository
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.default_element import ResultDefault
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from hydra.plugins.config_source import ConfigResult
from hydra.types import TaskFunction
from omegaconf import DictConfig, ListConfig, OmegaConf


def apply_overrides(overrides: Sequence[Override], config: DictConfig) -> None:
    """Lay overrides of values over a config, in order, as a job's are. Raises what Hydra raises."""
    ConfigLoaderImpl._apply_overrides_to_config(list(overrides), config)


def plain(config: Any, *, resolve: bool) -> dict[str, Any]:
    """The config as a dict, its interpolations followed or as they are written."""
    made = OmegaConf.to_container(config, resolve=resolve, throw_on_missing=resolve)
    assert isinstance(made, dict)
    return {str(key): value for key, value in made.items()}


def multirun(config_name: str, overrides: Sequence[str], task: TaskFunction) -> None:
    """What --multirun does, in the Hydra that has been initialized, with a loader that the whole command shares."""
    application = GlobalHydra.instance().hydra
    assert application is not None
    application.config_loader = RememberingLoader(application.config_loader)
    application.multirun(config_name, task, [*overrides, "hydra.mode=MULTIRUN"])


class RememberingLoader(ConfigLoaderImpl):
    """Hydra's loader, which reads each config file once."""

    repository: RememberingRepository
    merged: Sequence[ResultDefault] = ()
    """The files that the last config was merged from, in order."""

    def __init__(self, loader: ConfigLoader) -> None:
        assert isinstance(loader, ConfigLoaderImpl)
        super().__init__(loader.config_search_path)
        if isinstance(loader.repository, RememberingRepository):
            self.repository = loader.repository
        else:
            self.repository = RememberingRepository(loader.config_search_path)

    def _compose_config_from_defaults_list(self, defaults: list[ResultDefault], repo: IConfigRepository) -> DictConfig:
        self.merged = defaults
        return super()._compose_config_from_defaults_list(defaults, repo)


class RememberingRepository(ConfigRepository):
    """Remembers across its copies: Hydra makes one for each job that it composes."""

    def initialize_sources(self, config_search_path: ConfigSearchPath) -> None:
        super().initialize_sources(config_search_path)  # a config may name other places to look in
        self._read: dict[str, ConfigResult | None] = {}

    def read(self, config_path: str) -> ConfigResult | None:
        """One file. Not to be changed."""
        if config_path not in self._read:
            self._read[config_path] = super().load_config(config_path)
        return self._read[config_path]

    def load_config(self, config_path: str) -> ConfigResult | None:
        """A copy: Hydra hangs what it is given into the config that it makes."""
        return copy.deepcopy(self.read(config_path))

    def has_schema(self, config_path: str) -> bool:
        return self.get_schema_source().is_config(config_path)

    def __deepcopy__(self, memo: dict[int, Any]) -> RememberingRepository:
        other = copy.copy(self)
        other.sources = list(self.sources)
        return other


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
