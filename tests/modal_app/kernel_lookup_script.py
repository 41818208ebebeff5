"""Run a program of the trainer's, then print what transformers and Axolotl find of an attention kernel.

`python kernel_lookup_script.py PROGRAM WORDS`, in the trainer's environment. It ends with the program's exit code.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
from typing import Any


def found() -> dict[str, Any]:
    from axolotl.utils.schemas.validation import _flash_attn_kernel_failure
    from transformers.modeling_flash_attention_utils import (
        FLASH_ATTN_KERNEL_FALLBACK,
        FLASH_ATTN_KERNEL_VERSIONS,
        lazy_import_flash_attention,
    )
    from transformers.utils import is_flash_attn_2_available

    kernel = lazy_import_flash_attention("kernels-community/flash-attn2")[0][1]
    return {
        "available": is_flash_attn_2_available(kernels_fallback_ok=True),
        "failure": _flash_attn_kernel_failure("flash_attention_2"),
        "file": kernel.__code__.co_filename,
        "repositories": FLASH_ATTN_KERNEL_FALLBACK,
        "versions": FLASH_ATTN_KERNEL_VERSIONS,
    }


if __name__ == "__main__":
    answer = os.fdopen(os.dup(1), "w")
    del sys.argv[0]
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        answer.write(json.dumps(found()))
        answer.flush()
        sys.exit(end.code)
