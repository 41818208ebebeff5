"""Put 128 MiB into huge pages. Prints KiB in such pages before and after, the pieces, and whether the bytes are equal.

The last word is how many times faster a fork is afterwards.
"""

from __future__ import annotations

import mmap
import os
import re
import time
from pathlib import Path

from modal_app.warm import huge_pages


def huge_kib() -> int:
    found = re.search(r"AnonHugePages: +([0-9]+) kB", Path("/proc/self/smaps_rollup").read_text())
    assert found
    return int(found[1])


def fork_s() -> float:
    """The least processor time of twenty forks, to which other processes of the machine add little."""
    taken = []
    for _ in range(20):
        began = time.process_time()
        if not (pid := os.fork()):
            os._exit(0)
        taken.append(time.process_time() - began)
        os.waitpid(pid, 0)
    return min(taken)


held = mmap.mmap(-1, 128 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
held.madvise(mmap.MADV_NOHUGEPAGE)  # whatever the system's setting is, it starts in small ones
for page in range(0, len(held), 4096):
    held[page] = page // 4096 % 251
before, slow = huge_kib(), fork_s()
held.madvise(mmap.MADV_HUGEPAGE)  # from now on, the kernel may do so by itself, too
pieces = sum(1 for _ in huge_pages.collapse())
after, fast = huge_kib(), fork_s()
same = all(held[page] == page // 4096 % 251 for page in range(0, len(held), 4096))
print(before, after, pieces, same, slow / fast)
