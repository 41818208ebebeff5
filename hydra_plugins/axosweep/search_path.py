"""Makes `+sweeps=NAME` find sweeps/NAME.yaml from any working directory."""

from __future__ import annotations

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

from runner.shipped import shipped_root


class AxosweepSearchPath(SearchPathPlugin):
    """A group is a folder *on* the path, so the entry is the parent of sweeps/.

    Hydra asks every installed plugin, so another Hydra application in this environment is left alone.
    """

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        root = shipped_root()
        if any(entry.path == str(root / "conf") for entry in search_path.get_path()):
            search_path.append(provider="axosweep", path=f"file://{root}")
