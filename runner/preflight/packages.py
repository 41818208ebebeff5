"""Packages that a config needs and the trainer does not have: what the trainer has answered, as findings."""

from __future__ import annotations

import re

from modal_app.oneshot.named_imports import PACKAGES
from runner.preflight.findings import Finding, Severity
from runner.types import Experiment

DISTRIBUTIONS = {
    "optimi": "torch-optimi",
    "lomo_optim": "lomo-optim",
    "ringmaster": "axolotl-ringmaster",
    "fla": "flash-linear-attention",
}
"""The names under which modules are published, where that is another name."""
FORKS = {
    "cut_cross_entropy": "https://github.com/axolotl-ai-cloud/ml-cross-entropy",
    "sageattention": "https://github.com/thu-ml/SageAttention",
}
"""Modules that are installed from a repository. What is published under the name is something else, or older."""

KNOWN = {*DISTRIBUTIONS, *FORKS, *(module for modules in PACKAGES.values() for module in modules.values())}
"""Modules of which the distribution's name is known."""


def missing_package(experiment: Experiment, key: str, seen: str, message: str, module: str) -> Finding | None:
    """None if the run's trainer on Modal has it: executor.modal.packages names it."""
    distribution = DISTRIBUTIONS.get(module, module.replace("_", "-"))
    if distribution in _added(experiment):
        return None
    # The module of another package may have any name, so it may be one of those that are added.
    unsure = adds_packages(experiment) and (module not in KNOWN or not _added(experiment))
    severity = Severity.WARNING if unsure else Severity.ERROR
    return Finding(severity, key, seen, message, _way_out(experiment, module, distribution))


def adds_packages(experiment: Experiment) -> bool:
    """Whether the run's trainer has packages beyond the lock."""
    deployment = experiment.executor.modal
    return deployment is not None and (bool(deployment.packages) or deployment.trainer == "image")


def _added(experiment: Experiment) -> frozenset[str]:
    deployment = experiment.executor.modal
    names = [re.split(r"[\[=@ ]", one)[0] for one in (deployment.packages if deployment else ())]
    return frozenset(name.lower().replace("_", "-") for name in names)


def _way_out(experiment: Experiment, module: str, distribution: str) -> str:
    repository = FORKS.get(module)
    package = f"{distribution} @ git+{repository}@COMMIT" if repository else f"{distribution}==VERSION"
    line = f"\"executor.modal.packages=['{package}']\""  # as a shell takes it
    find = f" COMMIT has 40 digits: git ls-remote {repository} lists them." if repository else ""
    if experiment.executor.type == "modal":
        return f"Add it to the image: {line}.{find}"
    return f"Modal's image can have it: executor=modal {line}.{find}"
