"""What the requested GPU (or CPU) cannot do with this config, although Axolotl's schema accepts it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from runner.config.cpu_optimizers import NO_CPU_CODE, REPLACEMENT
from runner.config.gpus import GPUS, GpuKind, gpu_problems
from runner.config.numbers import is_count, number
from runner.preflight.findings import Finding, error, from_problem, gate, warning
from runner.types import Experiment, Gpu, ModelFacts

SHARDED = ("deepspeed", "fsdp", "fsdp_config", "fsdp_version")
PARALLEL = (
    "dp_shard_size",
    "dp_replicate_size",
    "context_parallel_size",
    "sequence_parallel_degree",
    "tensor_parallel_size",
)
WITHOUT = {"deepspeed": "deepspeed=none", "fsdp_config": "fsdp=none, or ~fsdp_config without a group"}
"""How to remove a key that a config group has set."""
KERNELS = ("lora_mlp_kernel", "lora_qkv_kernel", "lora_o_kernel", "lora_embedding_kernel")
ON_CPU = ("eager", "sdpa")
AMPERE, HOPPER = 80, 90
LARGE_ON_CPU = 1_000_000_000
"""With this many parameters on a CPU, the user has probably forgotten to request a GPU."""
FLASH_ATTENTION = "https://github.com/Dao-AILab/flash-attention"
"""Its README: FlashAttention-2 runs on Ampere, Ada and Hopper; FlashAttention-3 requires an H100 or H800."""


def gpu_findings(
    axolotl: Mapping[str, Any], gpu: Gpu, executor: str, facts: ModelFacts | None = None
) -> Iterator[Finding]:
    if not is_count(gpu.count):
        yield error("gpu.count", gpu.count, "expected at least one process", "Write gpu.count=1 or more.")
        return
    yield from map(from_problem, gpu_problems(gpu, executor))
    if axolotl.get("deepspeed") and axolotl.get("fsdp_config"):
        yield error(
            "deepspeed",
            "(with fsdp_config)",
            "both shard the model, and a run can use only one",
            "Choose deepspeed=none, or fsdp=none.",
        )
    if gpu.type == "cpu":
        yield from _on_cpu(axolotl)
        if facts and facts.parameters >= LARGE_ON_CPU:
            seen = f"cpu, for {facts.parameters / 1e9:.1f} billion parameters"
            way_out = "gpu=h100 requests a GPU, gpu=auto the cheapest that fits."
            yield warning("gpu", seen, "training would take weeks", way_out)
        return
    yield from _parallel(axolotl, gpu.count)
    for name in dict.fromkeys((gpu.type, *gpu.fallback)):
        if name in GPUS:
            yield from _on(GPUS[name], axolotl)


def optimizer_findings(experiment: Experiment, *, swept: bool) -> Iterator[Finding]:
    """On a CPU, an optimizer that has no code for one. It was replaced unless it is what the sweep compares (`swept`),
    or the config is to be trained as it is (base=FILE without gpu=cpu).
    """
    name = experiment.replaced_optimizer or str(experiment.axolotl.get("optimizer"))
    if experiment.gpu.type != "cpu" or name not in NO_CPU_CODE:
        return
    why = f"it has no code for a CPU ({NO_CPU_CODE[name]})"
    if swept or experiment.replaced_optimizer is None:
        yield error("optimizer", name, why, f"Choose a GPU (gpu=h100), or set optimizer={REPLACEMENT}.")
    else:
        yield warning("optimizer", name, f"{why}, so this run trains with {REPLACEMENT}", "gpu=h100 requests a GPU.")


def capabilities(gpu: Gpu) -> list[dict[str, Any]]:
    """What Axolotl would detect on each of the GPUs that a run may get (axolotl.cli.config.gpu_capabilities)."""
    count = gpu.count if is_count(gpu.count) else 1  # another one is a finding of its own
    if gpu.type == "cpu":
        return [{"bf16": False, "fp8": False, "tf32": False, "n_gpu": count, "compute_capability": None}]
    kinds = [GPUS[name] for name in dict.fromkeys((gpu.type, *gpu.fallback)) if name in GPUS]
    return [
        {
            "bf16": kind.bf16,
            "fp8": _capability(kind) >= HOPPER,  # Axolotl's own limit, although Ada cards support FP8
            "tf32": _capability(kind) >= AMPERE,
            "n_gpu": count,
            "compute_capability": kind.compute_capability,
        }
        for kind in kinds
    ]


def _on_cpu(axolotl: Mapping[str, Any]) -> Iterator[Finding]:
    for key in _sharding(axolotl):
        value = axolotl[key]
        yield error(
            key,
            "(set)" if isinstance(value, Mapping) else value,
            "it shards a model over GPUs, and with gpu=cpu it would be ignored without a message",
            f"Choose a GPU (gpu=a100_80gb), or remove the key ({WITHOUT.get(key, f'~{key}')}).",
        )
    for key in ("bf16", "bfloat16", "tf32", "fp8"):
        if axolotl.get(key) is True:
            yield error(key, True, "gpu=cpu does not support it, and training would fail at once", f"Set {key}=false.")
    attention = axolotl.get("attn_implementation")
    by_flag = axolotl.get("flash_attention") is True and not attention
    if by_flag or attention not in (None, *ON_CPU):
        yield error(
            "flash_attention" if by_flag else "attn_implementation",
            True if by_flag else attention,
            f"it does not run on a CPU; expected {'attn_implementation=' if by_flag else ''}{' or '.join(ON_CPU)}",
            f"Set {'flash_attention=false ' if by_flag else ''}attn_implementation=sdpa.",
        )
    yield from _lora_kernels_on_cpu(axolotl)


def _sharding(axolotl: Mapping[str, Any]) -> list[str]:
    """The keys that request several GPUs; next to fsdp_config, fsdp_version is not listed."""
    found = [key for key in (*SHARDED, *PARALLEL) if axolotl.get(key) is not None]
    return [
        key
        for key in found
        if not (key in PARALLEL and axolotl[key] == 1) and not (key == "fsdp_version" and "fsdp_config" in found)
    ]


def _lora_kernels_on_cpu(axolotl: Mapping[str, Any]) -> Iterator[Finding]:
    enabled = [key for key in KERNELS if axolotl.get(key)]
    if enabled:
        yield error(enabled[0], True, "the fused kernels need CUDA", f"Set {enabled[0]}=false.")
    # Axolotl enables them by itself if no key is set (axolotl.utils.schemas.validation).
    by_default = axolotl.get("adapter") == "qlora" or (
        axolotl.get("adapter") == "lora" and not axolotl.get("load_in_8bit")
    )
    configured = any(axolotl.get(key) is not None for key in KERNELS)
    if by_default and not configured and not axolotl.get("rl") and not axolotl.get("trust_remote_code"):
        yield error(
            KERNELS[0],
            None,
            "if it is not set, Axolotl enables its fused kernels, which need CUDA",
            f"Set {KERNELS[0]}=false (gpu=cpu does).",
        )


def _parallel(axolotl: Mapping[str, Any], count: int) -> Iterator[Finding]:
    """The product of the dimensions of parallelism must divide the number of ranks."""
    sizes = {key: size for key in PARALLEL if (size := number(axolotl.get(key))) and math.isfinite(size)}
    product = math.prod(sizes.values())
    if product > 1 and (product > count or count % product):
        key = next(key for key, size in sizes.items() if size > 1)
        wanted = " x ".join(f"{name}={int(size)}" for name, size in sizes.items() if size > 1)
        yield error(
            key,
            axolotl[key],
            f"{wanted} needs a multiple of {int(product)} GPUs, and gpu.count is {count}",
            f"Set gpu.count={int(product)}.",
        )


def _on(kind: GpuKind, axolotl: Mapping[str, Any]) -> Iterator[Finding]:
    capability = _capability(kind)
    for key in ("bf16", "bfloat16", "tf32"):
        if axolotl.get(key) is True and capability < AMPERE:
            yield error(
                key,
                True,
                f"gpu={kind.name} is older than Ampere ({kind.compute_capability}) and does not support it",
                f"Set {key}=false" + (" and fp16=true." if key == "bf16" else "."),
            )
    if axolotl.get("fp8") is True and capability < HOPPER:
        yield error(
            "fp8",
            True,
            f"Axolotl trains in FP8 only on Hopper (sm_90) or newer, and gpu={kind.name} is {kind.compute_capability}",
            "Choose gpu=h100, or remove the key (~fp8).",
        )
    attention = "flash_attention_2" if axolotl.get("flash_attention") else axolotl.get("attn_implementation")
    if attention == "flash_attention_2" and capability < AMPERE:
        yield error(
            "attn_implementation",
            attention,
            f"it runs on Ampere and newer, and gpu={kind.name} is {kind.compute_capability}",
            "Set attn_implementation=sdpa.",
            FLASH_ATTENTION,
        )
    if attention == "flash_attention_3" and capability != HOPPER:
        yield gate(
            "attn_implementation",
            attention,
            f"it requires Hopper (sm_90), and gpu={kind.name} is {kind.compute_capability}",
            "Set attn_implementation=flash_attention_2.",
            FLASH_ATTENTION,
        )


def _capability(kind: GpuKind) -> int:
    return int(kind.compute_capability.removeprefix("sm_"))
