"""A plugin with which plain Axolotl can train on two ranks of a CPU, for two_ranks.py.

axosweep's own plugin (modal_app/steps/plugin.py) does the same, but works only under its worker.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from axolotl.integrations.base import BasePlugin


class CpuRanks(BasePlugin):  # type: ignore[misc]
    """`plugins: [cpu_ranks.CpuRanks]`, with this folder in PYTHONPATH."""

    def register(self, cfg: dict[str, Any]) -> None:
        torch.cuda.can_device_access_peer = lambda device, peer: True
        os.environ["NCCL_P2P_DISABLE"] = "1"
        os.environ["ACCELERATE_USE_CPU"] = "true"  # gloo, and MULTI_CPU

    def load_datasets(self, cfg: Any, preprocess: bool = False) -> None:
        cfg.device_map = {"": "cpu"}  # Axolotl puts each rank of several on cuda:N
