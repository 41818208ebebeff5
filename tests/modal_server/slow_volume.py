"""Volumes that are slow, like Modal's: a library that is preloaded into containers delays each write by its bytes, and
the server each commit."""

from __future__ import annotations

import atexit
import shutil
import subprocess
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest

from tests.modal_server.rootfs import PRIVATE

_SOURCE = Path(__file__).with_suffix(".c")
_INSIDE = "/slow_volume.so"
needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="a slow Volume needs a C compiler (cc)")


def slow_volumes(bytes_per_s: float) -> dict[str, Any]:
    """Settings of a server whose Volumes accept so many bytes a second: files, container_environment and more."""
    return {
        "files": {_INSIDE: _library()},
        "container_environment": {
            "LD_PRELOAD": _INSIDE,
            "SLOW_BELOW": f"{PRIVATE}/volumes/",
            "SLOW_BYTES_PER_S": str(bytes_per_s),
        },
        "commit_bytes_per_s": bytes_per_s,
    }


@cache
def _library() -> Path:
    folder = mkdtemp(prefix="slow-volume-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    library = Path(folder) / "slow_volume.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, _SOURCE, "-ldl"], check=True)
    return library
