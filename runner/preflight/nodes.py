"""What is wrong with a composed job, a sentence each with the way out. Pure; all that can be known without Axolotl."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from modal_app.settings import settings_problems
from runner.errors import did_you_mean
from runner.fields import axolotl_fields, unknown_keys
from runner.gpus import gpu_problems
from runner.identity import is_address
from runner.types import DataChoice, ExecutorChoice, Gpu, TrackingChoice

_SHARDED = ("deepspeed", "fsdp", "fsdp_config", "fsdp_version")
_PARALLEL = (
    "dp_shard_size",
    "dp_replicate_size",
    "context_parallel_size",
    "sequence_parallel_degree",
    "tensor_parallel_size",
)


def problems_of(
    axolotl: Mapping[str, Any], gpu: Gpu, data: DataChoice, tracking: TrackingChoice, executor: ExecutorChoice
) -> list[str]:
    """Everything at once, so that a sweep is refused with all that has to be mended."""
    return [
        *unknown_keys(axolotl, axolotl_fields()),
        *_ownership_problems(axolotl),
        *_seed_problems(axolotl),
        *_gpu_problems(gpu, axolotl, executor),
        *_data_problems(data, axolotl),
        *_tracking_problems(tracking),
        *_executor_problems(executor),
    ]


def datasets_of(axolotl: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [dataset for dataset in axolotl.get("datasets") or () if isinstance(dataset, Mapping)]


def split_of(dataset: Mapping[str, Any]) -> str:
    return str(dataset.get("split") or "train")


def _ownership_problems(axolotl: Mapping[str, Any]) -> list[str]:
    """Keys that would be dropped without a word, decide a run from outside its key, or be kept in clear."""
    problems = [f"{key}: {_SET_BY_AXOSWEEP} {_instead(key)}" for key in axolotl if is_address(key) and axolotl[key]]
    if axolotl.get("resume_from_checkpoint"):
        problems.append(
            "resume_from_checkpoint: a run goes on from its own newest checkpoint by itself; another's would decide "
            "its result and stand in no key. Take it out (~resume_from_checkpoint); lora_model_dir starts from an "
            "adapter."
        )
    problems += [
        f"{key} holds a secret, and a run's config is kept on disk in clear. Take it out, and set the variable that "
        "its service reads from the environment."
        for key in _secrets(axolotl)
        if not is_address(key)
    ]
    return problems


def _seed_problems(axolotl: Mapping[str, Any]) -> list[str]:
    seed = axolotl.get("seed")
    if _is_integer(seed):
        return []
    return [f"seed={seed}: a whole number. Without one Axolotl shuffles differently each time, so a key names nothing."]


_SET_BY_AXOSWEEP = "axosweep decides where a run writes and who is told, so this would not reach Axolotl."
_SECRET = re.compile(r"(^|_)(api_key|secret|password|webhook_url)$")


def _instead(key: str) -> str:
    if key.startswith("wandb_") or key == "use_wandb":
        return f"Take it out (~{key}); W&B is set by tracking.mode, .project, .entity and .tags."
    return f"Take it out (~{key})."


def _secrets(node: Any, before: str = "") -> Iterator[str]:
    """Dotted names of the keys that hold a secret. Their values are never shown."""
    items = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ()
    for name, value in items:
        if isinstance(value, str) and value and _SECRET.search(str(name)):
            yield f"{before}{name}"
        yield from _secrets(value, f"{before}{name}.")


def _gpu_problems(gpu: Gpu, axolotl: Mapping[str, Any], executor: ExecutorChoice) -> list[str]:
    problems = []
    if not _is_integer(gpu.count, least=1):
        problems.append(f"gpu.count={gpu.count}: a run needs at least one process. Write gpu.count=1 or more.")
    else:
        problems += gpu_problems(gpu, executor.type)
    if gpu.type == "cpu":
        problems += [
            f"{key} shards a model over GPUs, and gpu=cpu would train without it in silence. "
            f"Choose a GPU (gpu=a100_80gb), or take it out ({_without(key)})."
            for key in _sharding(axolotl)
        ]
    if axolotl.get("deepspeed") and axolotl.get("fsdp_config"):
        problems.append("deepspeed and fsdp both shard the model, and a run takes one: deepspeed=none, or fsdp=none.")
    return problems


def _sharding(axolotl: Mapping[str, Any]) -> list[str]:
    """The keys that ask for several GPUs; a version says nothing beside what it is the version of."""
    asked = [key for key in (*_SHARDED, *_PARALLEL) if axolotl.get(key) is not None]
    return [
        key
        for key in asked
        if not (key in _PARALLEL and axolotl[key] == 1) and not (key == "fsdp_version" and "fsdp_config" in asked)
    ]


def _without(key: str) -> str:
    by_group = {"deepspeed": "deepspeed=none", "fsdp_config": "fsdp=none, or ~fsdp_config where it stands alone"}
    return by_group.get(key, f"~{key}")


def _data_problems(data: DataChoice, axolotl: Mapping[str, Any]) -> list[str]:
    problems = []
    paths = [dataset.get("path") for dataset in datasets_of(axolotl)]
    if None in paths:
        problems.append("A dataset has no path: dataset=local needs data.path=FILE, a file of your own.")
    elif data.path is not None and data.path not in paths:
        problems.append(f"data.path={data.path} is not read by this dataset. Add dataset=local.")
    if data.seed is not None and not _is_integer(data.seed):
        problems.append(f"data.seed={data.seed}: a whole number, or null for the run's own seed.")
    if data.limit is not None and not _is_integer(data.limit, least=1):
        problems.append(f"data.limit={data.limit}: a number of rows, at least 1.")
    elif data.limit is not None:
        problems += _limit_problems(data.limit, axolotl)
    return problems


def _limit_problems(limit: int, axolotl: Mapping[str, Any]) -> list[str]:
    if not datasets_of(axolotl):
        return [f"data.limit={limit} cuts `datasets`, and this run has none."]
    return [
        f"data.limit={limit} cannot cut datasets.{index}: its split is {split!r} already. Change one of the two."
        for index, dataset in enumerate(datasets_of(axolotl))
        if any(mark in (split := split_of(dataset)) for mark in "[+")
    ]


def _tracking_problems(tracking: TrackingChoice) -> list[str]:
    problems = []
    modes = ("online", "offline", "disabled")
    if tracking.mode not in modes:
        meant = did_you_mean(str(tracking.mode), modes)
        problems.append(f"tracking.mode={tracking.mode}: it is one of {', '.join(modes)}.{meant}")
    if tracking.project is None:
        problems.append("tracking.project has no value: give it one, or choose tracking=disabled.")
    if isinstance(tracking.tags, str):
        problems.append(f"tracking.tags={tracking.tags}: a list. Write tracking.tags=[{tracking.tags}].")
    return problems


def _executor_problems(executor: ExecutorChoice) -> list[str]:
    problems = []
    if executor.parallel is not None and not _is_integer(executor.parallel, least=1):
        problems.append(f"executor.parallel={executor.parallel}: a number of runs at a time, at least 1, or null.")
    if executor.max_gpus is not None and not _is_integer(executor.max_gpus, least=1):
        problems.append(f"executor.max_gpus={executor.max_gpus}: a number of GPUs at a time, at least 1, or null.")
    elif executor.max_gpus is not None and executor.type != "modal":
        problems.append(
            f"executor.max_gpus={executor.max_gpus} caps what executor=modal rents. Here executor.parallel sets how "
            "many runs train at a time."
        )
    if executor.type == "modal":
        problems += settings_problems(executor.modal or {})
    if not isinstance(executor.warm, bool):
        problems.append(f"executor.warm={executor.warm}: true or false.")
    return problems


def _is_integer(value: object, least: int | None = None) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and (least is None or value >= least)
