"""Print the plugins that Hydra finds, as module:class."""

from hydra.core.plugins import Plugins
from hydra.plugins.plugin import Plugin

for plugin in Plugins.instance().discover(Plugin):
    print(f"{plugin.__module__}:{plugin.__name__}")
