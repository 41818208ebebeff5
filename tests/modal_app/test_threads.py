"""How many cores' time the control groups of a process allow it, as a container, SLURM or systemd limits it."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from modal_app.process.threads import cpu_quota, usable_cores

DOCKER = "/docker/0a1b"
V1 = f"4:memory:{DOCKER}\n3:cpu,cpuacct:{DOCKER}\n0::/init.scope\n"


@pytest.mark.parametrize(
    ("groups", "files", "quota"),
    [
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "max 100000\n"}, math.inf),
        ("0::/\n", {}, math.inf),  # the group of the whole machine has no such file
        ("0::/slurm/job/step\n", {"slurm/job/step/cpu.max": "max 100000", "slurm/job/cpu.max": "150000 100000"}, 1.5),
        ("0::/a/b\n", {"a/b/cpu.max": "400000 100000", "a/cpu.max": "50000 25000", "cpu.max": "800000 100000"}, 2),
        ("0::/../../other\n", {"cpu.max": "300000 100000"}, 3),  # a group that this container does not see
        (V1, {"cpu/cpu.cfs_quota_us": "250000\n", "cpu/cpu.cfs_period_us": "50000\n"}, 5),
        (V1, {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, math.inf),
        (V1, {f"cpu{DOCKER}/cpu.cfs_quota_us": "1000", f"cpu{DOCKER}/cpu.cfs_period_us": "1000"}, 1),
        (V1, {f"cpu{DOCKER}/cpu.cfs_quota_us": "1000"}, math.inf),
        (V1, {f"memory{DOCKER}/cpu.max": "100000 100000"}, math.inf),
        ("", {"cpu.max": "100000 100000"}, math.inf),
    ],
)
def test_the_least_quota_of_a_group_and_those_above_it_counts(
    groups: str, files: Mapping[str, str], quota: float, tmp_path: Path
) -> None:
    (tmp_path / "cgroup").write_text(groups)
    for name, text in files.items():
        path = tmp_path / "top" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert cpu_quota(tmp_path / "top", tmp_path / "cgroup") == quota


def test_half_a_core_of_quota_is_one_core_to_use(tmp_path: Path) -> None:
    without = usable_cores(tmp_path / "top", tmp_path / "cgroup")
    (tmp_path / "cgroup").write_text("0::/\n")
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert usable_cores(tmp_path, tmp_path / "cgroup") == 1
    assert without == len(os.sched_getaffinity(0)), "a system without control groups"
