"""Memory in huge pages, as the kernel counts them, and a server that is done with it at some time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from modal_app.warm import huge_pages

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = """
import mmap, re, time
from modal_app.warm import huge_pages

def huge():
    return int(re.search(r"AnonHugePages: +([0-9]+) kB", open("/proc/self/smaps_rollup").read())[1])

def fork_s():
    import os
    taken = []
    for _ in range(7):
        began = time.perf_counter()
        if not (pid := os.fork()):
            os._exit(0)
        os.waitpid(pid, 0)
        taken.append(time.perf_counter() - began)
    return min(taken)

held = mmap.mmap(-1, 256 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
held.madvise(mmap.MADV_NOHUGEPAGE)  # whatever the system's setting is, it starts in small ones
for page in range(0, len(held), 4096):
    held[page] = page // 4096 % 251
held.madvise(mmap.MADV_HUGEPAGE)
before, slow = huge(), fork_s()
pieces = sum(1 for _ in huge_pages.collapse())
after, fast = huge(), fork_s()
same = all(held[page] == page // 4096 % 251 for page in range(0, len(held), 4096))
print(before, after, pieces, same, slow / fast)
"""
KERNEL = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])


@pytest.mark.skipif(KERNEL < (6, 1) or not huge_pages.SIZE_FILE.exists(), reason="this kernel cannot")
def test_memory_is_put_into_huge_pages_and_forks_take_less_for_it() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, check=True)
    before, after, pieces, same, times = done.stdout.split()
    assert int(before) < 8 << 10, "KiB"
    assert int(after) > 200 << 10
    assert int(pieces) >= 128, "of 2 MiB each"
    assert same == "True"
    assert float(times) > 1.5


def test_where_the_kernel_has_no_huge_pages_nothing_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huge_pages, "SIZE_FILE", tmp_path / "none")
    assert list(huge_pages.collapse()) == []
