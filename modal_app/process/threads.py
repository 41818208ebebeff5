"""How many threads a rank's libraries use. They read it from their environment when they are imported.

On a CPU it is one thread: the number of threads decides in which order numbers are added up, so it changes the losses,
and runs with the same key must have equal losses. Modal sets these variables from a container's CPU request, and a
shell may have set them. On a GPU the losses do not depend on it, and offloaded optimizers need the cores.
"""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path, PurePosixPath

from modal_app.store.step import Device

VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_CGROUPS, _OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def with_threads(number: int) -> dict[str, str]:
    return dict.fromkeys(VARIABLES, str(number))


def for_ranks(device: Device, ranks: int, cores: float) -> dict[str, str]:
    """The environment of each of `ranks` that share these cores."""
    return with_threads(1 if device is Device.CPU else max(1, int(cores // max(1, ranks))))


def unless_set(variables: dict[str, str]) -> dict[str, str]:
    """The same with what this process's environment says already."""
    return {name: os.environ.get(name) or value for name, value in variables.items()}


def usable_cores(root: Path = _CGROUPS, groups: Path = _OWN_GROUPS) -> int:
    """The cores that this process may use: those that it may run on, at most as many as its CPU quota is worth."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return math.ceil(min(cores, cpu_quota(root, groups)))


def cpu_quota(root: Path, groups: Path) -> float:
    """How many cores' time this process may use, as a container or a batch system limits it; infinite without a limit.

    From cpu.max of control groups version 2 (docs.kernel.org/admin-guide/cgroup-v2.html), or cpu.cfs_quota_us and
    cpu.cfs_period_us of version 1 (docs.kernel.org/scheduler/sched-bwc.html). The quota of a group holds for the groups
    in it, too. In a container, the group's own path may not be visible, and its files are at the top.
    """
    try:
        lines = groups.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return math.inf
    quotas = [math.inf]
    for _, controllers, path in (line.split(":", 2) for line in lines if line.count(":") >= 2):
        if controllers == "" or "cpu" in controllers.split(","):
            group, top = PurePosixPath(path), root / "cpu" if controllers else root
            quotas += [_quota_of(top / str(one).lstrip("/")) for one in (group, *group.parents)]
    return min(quotas)


def _quota_of(group: Path) -> float:
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        try:
            quota, period = (int(number) for name in names for number in (group / name).read_text().split())
        except (OSError, ValueError):  # there is no such file, or it says "max"
            continue
        if quota > 0 and period > 0:  # version 1 says -1 for no quota
            return quota / period
    return math.inf
