"""A command as a process of its own, and what it took: shared by the benchmarks of the launcher."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent


def measured(command: Sequence[str]) -> tuple[dict[str, float], str]:
    """Seconds, processor seconds and peak memory of a complete process, and what it has printed.

    Raises SystemExit if it fails.
    """
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - began
        output.seek(0)
        text = output.read()
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(command)[:500]}\nended with {process.returncode}:\n{text[-3000:]}")
    cpu = usage.ru_utime + usage.ru_stime
    return {"seconds": seconds, "cpu_seconds": cpu, "memory_mib": usage.ru_maxrss / 1024}, text
