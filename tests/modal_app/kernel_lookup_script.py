"""Print what transformers and Axolotl find of an attention kernel. Runs in the trainer's environment."""

from __future__ import annotations

import json

from axolotl.utils.schemas.validation import _flash_attn_kernel_failure
from transformers.modeling_flash_attention_utils import (
    FLASH_ATTN_KERNEL_FALLBACK,
    FLASH_ATTN_KERNEL_VERSIONS,
    lazy_import_flash_attention,
)
from transformers.utils import is_flash_attn_2_available

found = lazy_import_flash_attention("kernels-community/flash-attn2")[0][1]
print(
    json.dumps(
        {
            "available": is_flash_attn_2_available(kernels_fallback_ok=True),
            "failure": _flash_attn_kernel_failure("flash_attention_2"),
            "file": found.__code__.co_filename,
            "repositories": FLASH_ATTN_KERNEL_FALLBACK,
            "versions": FLASH_ATTN_KERNEL_VERSIONS,
        }
    )
)
