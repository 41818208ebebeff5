"""Optimizers that have no code for a CPU. All others that Axolotl accepts step on one, if their package is installed.

tests/modal_app/test_optimizers.py asks the trainer. The reasons are those of the libraries' own pages:
https://github.com/databricks/flashoptim, https://docs.pytorch.org/xla, https://github.com/Ascend/pytorch.
"""

from __future__ import annotations

REPLACEMENT = "adamw_torch"
"""What gpu=cpu trains with instead."""
_TRITON = "its kernels are written in Triton, for NVIDIA GPUs"
NO_CPU_CODE = {
    **dict.fromkeys(("flash_adam", "flash_adamw", "flash_lion", "flash_sgd", "flash_sgdw"), _TRITON),
    "adamw_torch_xla": "it is for TPUs",
    "adamw_torch_npu_fused": "it is for Ascend's NPUs",
}
