"""Whether a container on Modal reserves the host memory that its run needs for offloading. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping

from modal_app.cloud.settings import Deployment
from runner.preflight.findings import Finding, warning
from runner.types import Plan

GIB = 2**30


def host_findings(plan: Plan, hosts: Mapping[str, int], settings: Deployment) -> dict[str, Finding]:
    """Run key -> that its container reserves less than it needs. `hosts`: run key -> bytes."""
    cards = {one.run.key: one.run.experiment.gpu.count for one in plan.pending}
    return {
        key: _too_little(hosts[key] / GIB, count, settings.memory_gib)
        for key, count in cards.items()
        if hosts.get(key, 0) / GIB > settings.memory_gib * count
    }


def _too_little(needed_gib: float, cards: int, each_gib: float) -> Finding:
    expected = (
        f"the container reserves {each_gib * cards:.0f} GiB of host memory, but the run needs about {needed_gib:.0f} "
        "GiB of it for offloading. On a busy host it may be killed"
    )
    way_out = f"Set executor.modal.memory_gib={math.ceil(needed_gib / cards)}, or offload less."
    return warning("executor.modal.memory_gib", f"{each_gib:g}", expected, way_out)
