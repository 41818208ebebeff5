"""What this container uses, measured from inside: processor time, memory, GPUs. Standard library.

What cannot be read is None or left out: measuring never ends the work that is measured.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

GIB = 2**30
NVIDIA_SMI = (
    "nvidia-smi",
    "--query-gpu=name,memory.total,memory.used,utilization.gpu",
    "--format=csv,noheader,nounits",
)
SMI_TIMEOUT_S = 5.0
START_UP_S = 900.0
"""Process 1 is taken for the container's start only when it began at most this long before this process."""

_PROC = Path("/proc")
_MEMORY_OF_CGROUP = Path("/sys/fs/cgroup/memory.current")
"""A cgroup's own; the root, which is the whole machine, has no such file."""


@dataclass(frozen=True, slots=True)
class GpuReading:
    """One GPU at this moment. None: the driver does not say."""

    name: str
    memory_mib: int | None
    used_mib: int | None
    utilisation: int | None
    """Percent."""


def read_cards() -> list[GpuReading]:
    """The GPUs of this container, as nvidia-smi lists them; none where there is no nvidia-smi."""
    try:
        printed = subprocess.run(NVIDIA_SMI, capture_output=True, text=True, timeout=SMI_TIMEOUT_S, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [[value.strip() for value in line.split(",")] for line in printed.splitlines()]
    return [GpuReading(row[0], *map(_whole, row[1:])) for row in rows if len(row) == 4]


def cpu_seconds() -> float | None:
    """Hardware-thread seconds that the processes of this container have used, including those that have ended.

    From /proc, which shows a container its own processes only: a cgroup's files may be those of the whole machine.
    """
    used = [stat[11:15] for stat in map(_stat, _processes()) if len(stat) > 15]
    return sum(int(ticks) for stat in used for ticks in stat) / os.sysconf("SC_CLK_TCK") if used else None


def memory_gib() -> float | None:
    """Memory of this container: its cgroup's if that is its own, otherwise the private memory of its processes."""
    with contextlib.suppress(OSError, ValueError):
        return int(_MEMORY_OF_CGROUP.read_text()) / GIB
    pages = 0
    for process in _processes():
        with contextlib.suppress(OSError, ValueError):
            resident, shared = (process / "statm").read_text().split()[1:3]
            pages += int(resident) - int(shared)
    return pages * os.sysconf("SC_PAGE_SIZE") / GIB if pages else None


def container_age() -> float:
    """Seconds since this container began: since the start of its process 1, otherwise of this process, otherwise 0."""
    mine, first = _age_of(os.getpid()), _age_of(1)
    if first is not None and mine is not None and first - mine <= START_UP_S:
        return first
    return mine or 0.0


def _age_of(pid: int) -> float | None:
    """Seconds since a process began, whatever the clock says."""
    try:
        ticks = int(_stat(_PROC / str(pid))[19])
        uptime = float((_PROC / "uptime").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return None
    return uptime - ticks / os.sysconf("SC_CLK_TCK")


def _processes() -> list[Path]:
    try:
        return [entry for entry in _PROC.iterdir() if entry.name.isdecimal()]
    except OSError:
        return []


def _stat(process: Path) -> list[str]:
    """The fields of a process's stat after its name, which may contain spaces; none if it has ended."""
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _whole(text: str) -> int | None:
    """A number; None for [N/A] and the like."""
    return int(text) if text.isdecimal() else None
