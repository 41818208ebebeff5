"""Whether a container on Modal can reserve, and reserves, the host memory that its run needs for offloading. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping

from modal_app.cloud.settings import MOST_MEMORY_GIB, Deployment
from runner.preflight.findings import Finding, gate, warning
from runner.types import Plan

GIB = 2**30
KEY = "executor.modal.memory_gib"
RESOURCES = "https://modal.com/docs/guide/resources"


def host_findings(plan: Plan, hosts: Mapping[str, int], settings: Deployment) -> dict[str, Finding]:
    """Run key -> that its container reserves more than Modal has, or less than the run needs. `hosts`: run key -> bytes
    that it needs."""
    gpus = {one.run.key: one.run.experiment.gpu for one in plan.pending}
    cards = {key: 1 if gpu.type == "cpu" else gpu.count for key, gpu in gpus.items()}
    found = {key: _finding(hosts.get(key, 0) / GIB, count, settings.memory_gib) for key, count in cards.items()}
    return {key: one for key, one in found.items() if one is not None}


def _finding(needed_gib: float, cards: int, each_gib: float) -> Finding | None:
    reserved_gib = each_gib * cards
    if reserved_gib > MOST_MEMORY_GIB:
        return _too_much(cards, each_gib)
    return _too_little(needed_gib, cards, each_gib) if needed_gib > reserved_gib else None


def _too_much(cards: int, each_gib: float) -> Finding:
    """It is a gate, since Modal does not publish its maximum."""
    total = f"for {cards} GPUs that is {each_gib * cards:g} GiB, and " if cards > 1 else ""
    expected = (
        f"{total}Modal is known to refuse a container that requests more than {MOST_MEMORY_GIB} GiB of host memory"
    )
    return gate(KEY, f"{each_gib:g}", expected, f"Set {KEY}={MOST_MEMORY_GIB // cards} or less.", RESOURCES)


def _too_little(needed_gib: float, cards: int, each_gib: float) -> Finding:
    expected = (
        f"the container reserves {each_gib * cards:.0f} GiB of host memory, but the run needs about {needed_gib:.0f} "
        "GiB of it for offloading. On a busy host it may be killed"
    )
    way_out = f"Set {KEY}={math.ceil(needed_gib / cards)}, or offload less."
    if needed_gib > MOST_MEMORY_GIB:
        way_out = f"Modal reserves at most {MOST_MEMORY_GIB} GiB for a container: offload less."
    return warning(KEY, f"{each_gib:g}", expected, way_out)
