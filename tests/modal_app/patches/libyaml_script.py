"""Reads a config file without and with the launcher's patches, where PyYAML's own reader does not work."""

from __future__ import annotations

import sys
from typing import Any

import yaml.reader
from omegaconf import OmegaConf

from modal_app.patches.apply import apply_launcher_patches

reader: Any = yaml.reader.Reader
reader.__init__ = None
try:
    print(OmegaConf.load(sys.argv[1]), end=" ")
except TypeError as error:
    print(type(error).__name__, end=" ")
apply_launcher_patches()
print(OmegaConf.load(sys.argv[1]))
