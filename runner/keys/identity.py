"""Experiment -> Run: the keyed config, the data key, the run key. Pure; the same request always gives the same key.

The keyed config names local inputs by content (`inputs/<sha256>`) and hub inputs by commit. So no key depends on a
path or a branch name, and the text that Axolotl hashes is the same on every machine.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from runner.errors import SweepError
from runner.keys.inputs import pinned, staged_name
from runner.types import Experiment, Input, InputKind, Run

KEY_LENGTH = 12

ADDRESSES = frozenset(
    {
        "output_dir",
        "dataset_prepared_path",
        "auto_resume_from_checkpoints",
        "use_wandb",
        "use_mlflow",
        "use_comet",
        "use_trackio",
        "use_tensorboard",
        "hub_model_id",
        "hub_strategy",
        "hub_revision",
        "push_dataset_to_hub",
    }
)
"""Where results are written and which services are notified. No key covers them; they are added afterwards."""

ADDRESS_PREFIXES = ("wandb_", "mlflow_", "comet_", "trackio_")

TRAIN_ONLY = frozenset(
    """
    learning_rate optimizer optim_args lr_scheduler lr_scheduler_kwargs lr_quadratic_warmup weight_decay max_grad_norm
    warmup_steps warmup_ratio cosine_min_lr_ratio cosine_constant_lr_ratio adam_beta1 adam_beta2 adam_epsilon
    micro_batch_size gradient_accumulation_steps batch_size eval_batch_size num_epochs max_steps
    eval_steps evals_per_epoch eval_strategy save_steps saves_per_epoch save_strategy save_total_limit
    save_only_model save_first_step logging_steps early_stopping_patience load_best_model_at_end
    resume_from_checkpoint metric_for_best_model greater_is_better loss_watchdog_threshold loss_watchdog_patience
    adapter lora_r lora_alpha lora_dropout lora_target_linear lora_target_modules lora_target_parameters
    lora_modules_to_save lora_mlp_kernel lora_qkv_kernel lora_o_kernel lora_embedding_kernel
    lora_fan_in_fan_out lora_on_cpu peft_use_dora peft_use_rslora peft_layers_to_transform loraplus_lr_ratio
    loraplus_lr_embedding load_in_8bit load_in_4bit bf16 fp16 fp8 tf32 bfloat16 float16
    attn_implementation flash_attention sdp_attention xformers_attention eager_attention flex_attention
    gradient_checkpointing gradient_checkpointing_kwargs activation_offloading torch_compile torch_compile_mode
    torch_compile_backend dataloader_num_workers dataloader_pin_memory dataloader_prefetch_factor
    low_cpu_mem_usage gpu_memory_limit neftune_noise_alpha fsdp_config fsdp_version ddp_timeout
    """.split()
)
"""Keys that change how a run trains and never what preprocessing writes.

The data key covers the rest of the config. A key that is missing here costs a needless preprocessing; a key that is
wrongly here would make a run train on the wrong rows. tests/modal_app checks every name against Axolotl's own hash.
"""


def is_address(key: object) -> bool:
    """Whether an Axolotl key says only where a run's results go. A key of a file may be a number."""
    return isinstance(key, str) and (key in ADDRESSES or key.startswith(ADDRESS_PREFIXES))


def identify_run(experiment: Experiment, inputs: Iterable[Input], *, trainer_lock: str) -> Run:
    """The run that an experiment is. `trainer_lock` is the hash of the trainer environment's lock.

    If an input could not be resolved, its name is in the key; such a run can be shown but not launched.
    Raises SweepError for a config value that has no canonical form.
    """
    inputs = tuple(inputs)
    canonical(experiment.axolotl)  # first, so that an error names the key as the config does
    config = keyed_config(experiment.axolotl, inputs)
    data_key = _data_key(config, experiment.data.seed, trainer_lock)
    identity = {"config": config, "ranks": experiment.gpu.count, "data": data_key, "trainer": trainer_lock}
    return Run(short_hash(identity), data_key, experiment, config, inputs)


def data_key_with(run: Run, trainer_lock: str) -> str:
    """The data key that a run would have with another trainer."""
    return _data_key(run.config, run.experiment.data.seed, trainer_lock)


def _data_key(config: Mapping[str, Any], data_seed: int | None, trainer_lock: str) -> str:
    return short_hash({"config": _data_part(config, data_seed), "trainer": trainer_lock})


def split_by_gpu_type(runs: Sequence[Run]) -> list[Run]:
    """The same runs, but with separate keys for runs that the sweep requests on several kinds of GPU.

    Otherwise no key depends on the GPU, so that a run that has finished on one GPU is not paid for again on another.
    A sweep over `gpu` does want to train on each.
    """
    kinds: dict[str, set[str]] = {}
    for run in runs:
        kinds.setdefault(run.key, set()).add(run.experiment.gpu.type)
    return [
        replace(run, key=short_hash({"run": run.key, "gpu": run.experiment.gpu.type}))
        if len(kinds[run.key]) > 1
        else run
        for run in runs
    ]


def keyed_config(axolotl: Mapping[str, Any], inputs: Iterable[Input]) -> dict[str, Any]:
    """The config without addresses, local inputs by content, hub inputs pinned to their commits."""
    return placed_config(axolotl, inputs, staged_name)


def placed_config(axolotl: Mapping[str, Any], inputs: Iterable[Input], place: Callable[[Input], str]) -> dict[str, Any]:
    """The same, with local inputs at the paths that `place` returns. An input without an identity keeps its name.

    Parts without an input are shared with the original config, not copied.
    """
    config = {key: value for key, value in axolotl.items() if not is_address(key)}
    for found in inputs:
        if found.identity is None or found.kind is InputKind.ROW_FILES:
            continue
        at, value = pinned(found, found.identity) if found.kind is InputKind.HUB else (found.at, place(found))
        config = _with(config, at.split("."), value)
    return config


def preprocess_config(run: Run) -> dict[str, Any]:
    """The keyed config as preprocessing reads it: shuffled and split with the data seed."""
    seed = run.experiment.data.seed
    return dict(run.config) if seed is None else {**run.config, "seed": seed}


def canonical(value: Any, at: str = "axolotl") -> Any:
    """The form in which a JSON value is hashed: floats without a fraction become integers; anything else is refused.

    >>> canonical({"b": 2.0, "a": [True, None, 1e-4]})
    {'a': [True, None, 0.0001], 'b': 2}
    """
    match value:
        case None | bool() | str() | int():
            return value
        case float():
            if not math.isfinite(value):
                raise SweepError(f"{at} is {value}; expected a finite number.")
            return int(value) if value.is_integer() else value
        case Mapping():
            return {str(key): canonical(value[key], f"{at}.{key}") for key in sorted(value, key=str)}
        case list() | tuple():
            return [canonical(item, f"{at}.{index}") for index, item in enumerate(value)]
        case _:
            raise SweepError(f"{at} is a {type(value).__name__}; write text, a number, a list or a mapping.")


def short_hash(value: Any, length: int = KEY_LENGTH) -> str:
    """Hex digits of the sha256 of a value's canonical JSON."""
    text = json.dumps(canonical(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def _data_part(config: Mapping[str, Any], data_seed: int | None) -> dict[str, Any]:
    part = {key: value for key, value in config.items() if key not in TRAIN_ONLY}
    if config.get("context_parallel_size") in (None, 1):
        part.pop("deepspeed", None)  # Axolotl hashes it only together with context parallelism
    if data_seed is not None:
        part["seed"] = data_seed
    return part


def _with(node: Any, path: Sequence[str], value: str) -> Any:
    """A copy with the value at the path."""
    if not path:
        return value
    name, *rest = path
    if isinstance(node, list):
        index = int(name)
        return [*node[:index], _with(node[index], rest, value), *node[index + 1 :]]
    return {**node, name: _with(node[name] if rest else None, rest, value)}
