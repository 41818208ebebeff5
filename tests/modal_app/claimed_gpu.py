"""The hash with which a trainer on a GPU looks for its prepared rows, computed on a machine without one: run by the
trainer's Python with a store, a config, and torch's description of the GPU (axolotl.cli.config.gpu_capabilities)."""

from __future__ import annotations

import json
import os
import sys

import axolotl.cli.config
import axolotl.utils.config
import torch

from modal_app.steps.plugin import prepared_hashes


def main(folder: str, config: str, capabilities: str) -> None:
    os.chdir(folder)
    claimed, version = json.loads(capabilities), torch.__version__.partition("+")[0]
    axolotl.cli.config.gpu_capabilities = lambda: (claimed, {"torch_version": version})
    axolotl.utils.config.is_torch_bf16_gpu_available = lambda: claimed["bf16"]
    cfg = axolotl.cli.config.load_cfg(config)
    print(json.dumps({"bf16": cfg.bf16, "hashes": prepared_hashes(cfg)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
