"""Settings that do not go together: a library refuses them once the model is loaded, or its documentation warns.

Axolotl's schema checks Axolotl's own illegal pairs. Each rule here names its source.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from runner.config.numbers import number
from runner.cost.length import batch_of
from runner.memory.sharding import deepspeed_of, offloads, zero_of, zero_stage
from runner.preflight.findings import Finding, error, shown, warning

PEFT_FSDP = "https://huggingface.co/docs/peft/accelerate/fsdp#caveats"
PEFT_DEEPSPEED = "https://huggingface.co/docs/peft/accelerate/deepspeed#caveats"
PEFT_DORA = "https://huggingface.co/docs/peft/developer_guides/lora#weight-decomposed-low-rank-adaptation-dora"
BNB_FSDP = "https://huggingface.co/docs/bitsandbytes/fsdp_qlora#quantized-data-storage"
AXOLOTL_FSDP2 = "https://github.com/axolotl-ai-cloud/axolotl/blob/main/src/axolotl/utils/schemas/validation.py"
"""check_fsdp2_w_8bit_optimizer: bitsandbytes' 8-bit optimizers fail in CUDA under FSDP2."""
AXOLOTL_RELORA = "https://github.com/axolotl-ai-cloud/axolotl/blob/main/src/axolotl/monkeypatch/relora.py"
ACCELERATE_OFFLOAD = "https://github.com/huggingface/accelerate/blob/main/src/accelerate/utils/deepspeed.py"
"""map_pytorch_optim_to_deepspeed: what replaces an optimizer whose state is offloaded."""
TRANSFORMERS_DEEPSPEED = "https://huggingface.co/docs/transformers/deepspeed"
TRANSFORMERS_ARGUMENTS = "https://github.com/huggingface/transformers/blob/main/src/transformers/training_args.py"

BNB_8BIT = (
    "adamw_8bit adamw_bnb_8bit ademamix_8bit lion_8bit paged_adamw_8bit paged_ademamix_8bit paged_lion_8bit "
    "rmsprop_bnb_8bit"
).split()
REFUSED_BY_THE_SCHEMA = ("adamw_8bit", "adamw_bnb_8bit")
SAME_WHEN_OFFLOADED = ("adamw_torch", "adamw_torch_fused", "adagrad", "lion_32bit")
"""Optimizers that accelerate replaces with the same algorithm on the CPU."""

FIGURES = {
    "train_micro_batch_size_per_gpu": "micro_batch_size",
    "gradient_accumulation_steps": "gradient_accumulation_steps",
    "gradient_clipping": "max_grad_norm",
    "optimizer.params.lr": "learning_rate",
    "optimizer.params.eps": "adam_epsilon",
    "optimizer.params.weight_decay": "weight_decay",
    "scheduler.params.warmup_max_lr": "learning_rate",
}
"""What DeepSpeed's settings have as well -> the key of Axolotl."""


def pair_findings(axolotl: Mapping[str, Any], processes: int) -> Iterator[Finding]:
    deepspeed = deepspeed_of(axolotl)
    yield from _with_fsdp(axolotl)
    yield from _with_deepspeed(axolotl, deepspeed, zero_of(axolotl))
    yield from _contradictions(axolotl, deepspeed, processes)
    yield from _transformers(axolotl)
    yield from _relora(axolotl)


def _with_fsdp(axolotl: Mapping[str, Any]) -> Iterator[Finding]:
    if not axolotl.get("fsdp_config"):
        return
    optimizer = axolotl.get("optimizer")
    if optimizer in BNB_8BIT and optimizer not in REFUSED_BY_THE_SCHEMA:
        yield warning(
            "optimizer",
            optimizer,
            "bitsandbytes' 8-bit optimizers fail under FSDP2; with QLoRA, paged_adamw_8bit fails when a checkpoint is "
            "saved",
            "Set optimizer=adamw_torch_8bit.",
            f"{AXOLOTL_FSDP2} {PEFT_FSDP}",
        )
    if axolotl.get("load_in_8bit"):
        yield warning(
            "load_in_8bit",
            True,
            "FSDP shards only floating-point weights; bitsandbytes stores 4-bit weights as such, but not 8-bit ones",
            "Use lora=qlora.",
            BNB_FSDP,
        )
    if axolotl.get("load_in_8bit") and axolotl.get("peft_use_dora"):
        yield warning("peft_use_dora", True, "DoRA on 8-bit weights has known issues under FSDP", source=PEFT_FSDP)
    if axolotl.get("lora_modules_to_save"):
        yield warning("lora_modules_to_save", axolotl["lora_modules_to_save"], "untested with FSDP", source=PEFT_FSDP)


def _with_deepspeed(
    axolotl: Mapping[str, Any], deepspeed: Mapping[str, Any], zero: Mapping[str, Any]
) -> Iterator[Finding]:
    stage = zero_stage(axolotl)
    quantized = axolotl.get("load_in_4bit") or axolotl.get("load_in_8bit")
    optimizer = axolotl.get("optimizer")
    if stage == 2 and quantized and axolotl.get("peft_use_dora"):
        yield warning("peft_use_dora", True, "DoRA on quantized weights has known issues with ZeRO-2", "", PEFT_DORA)
    if offloads(zero.get("offload_optimizer")) and "optimizer" not in deepspeed:
        replaced = isinstance(optimizer, str) and optimizer not in SAME_WHEN_OFFLOADED
        if replaced and deepspeed.get("zero_force_ds_cpu_optimizer", True):
            yield warning(
                "optimizer",
                optimizer,
                "with an offloaded optimizer, accelerate replaces it with DeepSpeed's 32-bit Adam on the CPU",
                "Set optimizer=adamw_torch, the same algorithm.",
                ACCELERATE_OFFLOAD,
            )
    if stage == 3 and axolotl.get("adapter") == "qlora" and offloads(zero.get("offload_param")):
        yield warning(
            "deepspeed",
            "(ZeRO-3 with offload)",
            "with QLoRA, offloading to the CPU takes more GPU memory than not offloading",
            "Use deepspeed=zero3.",
            PEFT_DEEPSPEED,
        )


def _contradictions(axolotl: Mapping[str, Any], deepspeed: Mapping[str, Any], processes: int) -> Iterator[Finding]:
    """Settings that transformers refuses if they differ from its own (HfTrainerDeepSpeedConfig)."""
    own: dict[str, tuple[Any, str]] = {name: (axolotl.get(key), f"as in {key}") for name, key in FIGURES.items()}
    batch = batch_of(axolotl)
    factors = f"micro_batch_size x gradient_accumulation_steps x gpu.count={processes}"
    own["train_batch_size"] = batch.micro * batch.accumulation * processes, factors
    if axolotl.get("bf16") is True or axolotl.get("fp16") is True:
        for name in ("bf16", "fp16"):
            own[f"{name}.enabled"] = name == _precision(axolotl), f"since the run trains in {_precision(axolotl)}"
    for name, (ours, why) in own.items():
        theirs = _at(deepspeed, name)
        given = number(theirs) if not isinstance(theirs, bool) else theirs
        if given is None or ours is None or given == (ours if isinstance(ours, bool) else number(ours)):
            continue
        in_file = isinstance(axolotl["deepspeed"], str)
        way_out = f"Write auto for {name} in {axolotl['deepspeed']}." if in_file else f"Set deepspeed.{name}=auto."
        yield error(f"deepspeed.{name}", theirs, f"expected {shown(ours)}, {why}", way_out, TRANSFORMERS_DEEPSPEED)


def _precision(axolotl: Mapping[str, Any]) -> str:
    """Of a run with one of both: Axolotl prefers bf16."""
    return "bf16" if axolotl.get("bf16") is True else "fp16"


def _at(node: Any, path: str) -> Any:
    """The value at a dotted path; None without one."""
    for name in path.split("."):
        node = node.get(name) if isinstance(node, Mapping) else None
    return node


def _transformers(axolotl: Mapping[str, Any]) -> Iterator[Finding]:
    """Settings that transformers' TrainingArguments refuses once the model is loaded."""
    if number(axolotl.get("dataloader_num_workers")) == 0 and axolotl.get("dataloader_prefetch_factor") is not None:
        yield error(
            "dataloader_prefetch_factor",
            axolotl["dataloader_prefetch_factor"],
            "it needs processes that load data, and dataloader_num_workers is 0",
            "Remove it (~dataloader_prefetch_factor).",
            TRANSFORMERS_ARGUMENTS,
        )
    scheduler = axolotl.get("lr_scheduler")
    if scheduler in ("reduce_lr_on_plateau", "greedy") and not evaluates(axolotl):
        yield error(
            "lr_scheduler",
            scheduler,
            "it depends on the eval loss, and Axolotl evaluates nothing in this run",
            "Set val_set_size=0.05 and evals_per_epoch=4, or another lr_scheduler.",
            TRANSFORMERS_ARGUMENTS,
        )


def _relora(axolotl: Mapping[str, Any]) -> Iterator[Finding]:
    """Axolotl refuses it at the first restart, when part of the run has been trained."""
    optimizer = axolotl.get("optimizer")
    if axolotl.get("relora") and isinstance(optimizer, str) and "adam" not in optimizer:
        yield error(
            "optimizer",
            optimizer,
            "a restart of ReLoRA resets the states of Adam, and fails with any other optimizer",
            "Set optimizer=adamw_torch.",
            AXOLOTL_RELORA,
        )


def evaluates(axolotl: Mapping[str, Any]) -> bool:
    """Whether Axolotl configures evaluations (normalize_config, _configure_save_and_eval_strategy)."""
    if not (axolotl.get("val_set_size") or axolotl.get("test_datasets")) or axolotl.get("eval_strategy") == "no":
        return False
    # Axolotl converts evals_per_epoch to a share of all steps, and drops it unless it is below 1.
    in_all = (number(axolotl.get("evals_per_epoch")) or 0) * (number(axolotl.get("num_epochs", 1)) or 0)
    return bool(axolotl.get("eval_steps") or axolotl.get("eval_strategy")) or in_all > 1
