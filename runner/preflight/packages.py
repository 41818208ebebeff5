"""Optimizers whose package is not in the trainer's lock: the run would fail once its model is loaded."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from runner.environment.trainer_environment import LOCK_FILE
from runner.preflight.findings import Finding, gate
from runner.types import ExecutorChoice

PACKAGES = {
    "optimi_adamw": "torch-optimi",
    "stable_adamw": "torch-optimi",
    "came_pytorch": "came-pytorch",
    "scao": "scao",
    "polora": "polora",
    "q_galore_adamw8bit": "q-galore-torch",
    "grokadamw": "grokadamw",
    "lomo": "lomo-optim",
    "adalomo": "lomo-optim",
    "adamw_anyprecision": "torchdistx",
    **dict.fromkeys(("flash_adam", "flash_adamw", "flash_lion", "flash_sgd", "flash_sgdw"), "flashoptim"),
    **dict.fromkeys(("apollo_adamw", "apollo_adamw_layerwise"), "apollo-torch"),
    **dict.fromkeys(
        (f"galore_{one}{layer}" for one in ("adamw", "adamw_8bit", "adafactor") for layer in ("", "_layerwise")),
        "galore-torch",
    ),
    **dict.fromkeys(("schedule_free_adamw", "schedule_free_radam", "schedule_free_sgd"), "schedulefree"),
}
"""What axolotl.core.builders.base and transformers.trainer_optimizer import, by the names of Axolotl's extras."""


def package_findings(axolotl: Mapping[str, Any], executor: ExecutorChoice) -> Iterator[Finding]:
    optimizer = axolotl.get("optimizer")
    package = PACKAGES.get(optimizer) if isinstance(optimizer, str) else None
    if package is None or package in _locked() or package in _added(executor):
        return
    way_out = f"Add it: executor.modal.packages=[{package}==VERSION]." if executor.type == "modal" else ""
    yield gate("optimizer", optimizer, f"it needs the package {package}, which the trainer does not have", way_out)


@functools.cache
def _locked() -> frozenset[str]:
    text = LOCK_FILE.read_text(encoding="utf-8")
    return frozenset(re.findall(r"^([\w.-]+)==", text, re.MULTILINE))


def _added(executor: ExecutorChoice) -> frozenset[str]:
    """The packages that the run's trainer has beyond the lock; all of them, if the user has built the trainer."""
    deployment = executor.modal
    brings_own = deployment is not None and deployment.trainer == "image"
    if brings_own or (executor.type == "local" and "AXOSWEEP_TRAINER" in os.environ):
        return frozenset(PACKAGES.values())
    names = [re.split(r"[\[=@ ]", one)[0] for one in (deployment.packages if deployment else ())]
    return frozenset(name.lower().replace("_", "-") for name in names)
