"""Puts a user's own conf/ ahead of the shipped one, and makes `+sweeps=NAME` find sweeps/NAME.yaml."""

from __future__ import annotations

from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.plugins.search_path_plugin import SearchPathPlugin

from runner.config.project import SWEEPS_PROVIDER, current_project
from runner.config.shipped import shipped_root


class AxosweepSearchPath(SearchPathPlugin):
    """A group is a folder *on* the path, so the entry for sweeps/ is its parent.

    Such a parent comes last, so that nothing else in it replaces a config group.
    Hydra calls this plugin for every Hydra application in the environment, so other applications are left alone.
    """

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        shipped = str(shipped_root() / "conf")
        if not any(entry.path == shipped for entry in search_path.get_path()):
            return
        project = current_project()
        for folder in project.conf[:-1]:
            search_path.prepend("project", f"file://{folder}", SearchPathQuery(path=shipped))
        for home in project.homes:
            search_path.append(SWEEPS_PROVIDER, f"file://{home}")
