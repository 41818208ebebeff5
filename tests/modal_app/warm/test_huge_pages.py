"""Memory in huge pages, as the kernel counts them, and a server that finishes this work at some time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from modal_app.warm import huge_pages

SCRIPT = Path(__file__).with_name("huge_pages_script.py")
KERNEL = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])


@pytest.mark.skipif(KERNEL < (6, 1) or not huge_pages.SIZE_FILE.exists(), reason="this kernel cannot")
def test_memory_is_put_into_huge_pages_and_forks_take_less_for_it() -> None:
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, check=True)
    before, after, pieces, same, times = done.stdout.split()
    assert int(before) < 8 << 10, "KiB"
    assert int(after) > 100 << 10
    assert int(pieces) >= 64, "of 2 MiB each"
    assert same == "True"
    assert float(times) > 1.5


def test_where_the_kernel_has_no_huge_pages_nothing_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huge_pages, "SIZE_FILE", tmp_path / "none")
    assert list(huge_pages.collapse()) == []
