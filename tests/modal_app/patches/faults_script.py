"""How many page faults it takes to free and allocate 40 MiB ten times: `python faults_script.py [patched]`."""

from __future__ import annotations

import contextlib
import resource
import sys

from modal_app.patches.importing import reuse_freed_memory

with reuse_freed_memory() if sys.argv[1:] else contextlib.nullcontext():
    for _ in range(10):
        [bytearray(1 << 20) for _ in range(40)]
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
