"""Axolotl's own verdict on configs, run by the trainer's Python: JSON list on stdin, JSON list on stdout.

Each verdict is null, or the error's text. The schema is told of eight A100-80GB, so no GPU is needed.
"""

from __future__ import annotations

import json
import sys
from typing import Any

GPUS = {
    "bf16": True,
    "fp8": False,
    "tf32": True,
    "n_gpu": 8,
    "n_node": 1,
    "compute_capability": "sm_80",
}


def verdict(config: dict[str, Any]) -> str | None:
    import torch
    from axolotl.utils.config import validate_config
    from axolotl.utils.dict import DictDefault

    try:
        validate_config(
            DictDefault(config),
            capabilities=GPUS,
            env_capabilities={"torch_version": torch.__version__.partition("+")[0]},
        )
    except (ValueError, ImportError) as error:
        return str(error)
    return None


if __name__ == "__main__":
    configs = json.load(sys.stdin)
    sys.stdout.write("\n" + json.dumps([verdict(config) for config in configs]))
