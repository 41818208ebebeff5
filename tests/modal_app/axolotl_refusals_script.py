"""Prints which configs Axolotl itself refuses: reads a list of (name, config, capabilities of a GPU) as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from axolotl.utils.config import validate_config
from axolotl.utils.dict import DictDefault


def is_refused(config: Mapping[str, Any], gpu: Mapping[str, Any]) -> bool:
    try:
        validate_config(DictDefault(config), capabilities=gpu, env_capabilities={"torch_version": "2.14.1"})
    except Exception:  # whatever its rules raise
        return True
    return False


print(json.dumps([name for name, config, gpu in json.load(sys.stdin) if is_refused(config, gpu)]))
