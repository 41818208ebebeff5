"""gpu=auto -> the cards of a run, chosen before its key is computed, since the key covers their number."""

from __future__ import annotations

from dataclasses import replace

from runner.config.gpus import GpuKind
from runner.errors import SweepError
from runner.memory.choice import AUTO, choose
from runner.memory.config import attention_of
from runner.memory.sharding import with_files
from runner.preflight.findings import Severity
from runner.preflight.gpu import gpu_findings
from runner.preflight.keys import key_findings
from runner.preflight.memory import facts_for
from runner.preflight.values import value_findings
from runner.types import Experiment, Gpu

BLACKWELL = ("sm_100", "sm_120")
"""FlashAttention-2's README promises Ampere, Ada and Hopper. An automatic choice must not go beyond that."""


def with_gpu(experiment: Experiment) -> Experiment:
    """The experiment with the cards that gpu=auto chose, and the reason; unchanged for any other gpu.

    Raises SweepError when nothing can be chosen, or a value is wrong.
    """
    gpu = experiment.gpu
    if gpu.type != AUTO:
        return experiment
    if gpu.count is not None and not (isinstance(gpu.count, int) and gpu.count >= 1):
        raise SweepError(f"gpu.count={gpu.count}: expected a number of cards, or null for the cheapest.")
    if experiment.prices is None:
        raise SweepError("gpu=auto needs prices, and there are none. Write prices=modal, or name the GPU: gpu=h100.")
    found = (*key_findings(experiment.axolotl), *value_findings(experiment.axolotl))
    if wrong := [one for one in found if one.severity is Severity.ERROR]:
        lines = [f"- {one.text}" for one in wrong]
        raise SweepError("\n".join(["gpu=auto: no GPU can be chosen for wrong values.", *lines]))
    config = with_files(experiment.axolotl)

    def able(kind: GpuKind) -> bool:
        if attention_of(config) == "flash_attention_2" and kind.compute_capability in BLACKWELL:
            return False
        found = gpu_findings(config, Gpu(kind.name, gpu.count or kind.most), experiment.executor.type)
        return all(one.severity is Severity.WARNING for one in found)

    shape = facts_for(experiment)
    if shape.facts is None:
        raise SweepError(f"gpu=auto: {shape.problem}. Name the GPU: gpu=h100 gpu.count=1.")
    chosen = choose(config, shape.facts, experiment.prices.gpu, count=gpu.count, able=able)
    return replace(experiment, gpu=replace(gpu, type=chosen.gpu, count=chosen.count), chosen=chosen.reason)
