"""Hydra's composed config -> Experiment and Request: resolved, plain, and checked by all that can be known here.

With the application and the plugins, the only place that knows Hydra and omegaconf.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import omegaconf
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from runner.errors import SweepError, did_you_mean
from runner.fields import axolotl_fields, unknown_keys
from runner.overrides import parts
from runner.shipped import shipped_root
from runner.types import Action, DataChoice, ExecutorChoice, Experiment, Gpu, Request, TrackingChoice

REQUEST_KEYS = ("action", "json", "name", "store")
"""What the whole command is asked to do: the same for all its runs, so never swept."""

_SHARDED = ("deepspeed", "fsdp", "fsdp_config", "fsdp_version")
_PARALLEL = (
    "dp_shard_size",
    "dp_replicate_size",
    "context_parallel_size",
    "sequence_parallel_degree",
    "tensor_parallel_size",
)


def register_resolvers() -> None:
    """`${shipped:tiny/model}` is a path of the shipped data on this machine."""
    since_2_4 = not omegaconf.__version__.startswith("2.3.")  # 2.3 has an older function by the newer name
    register: Any = getattr(OmegaConf, "register_resolver" if since_2_4 else "register_new_resolver")
    register("shipped", lambda path: str(shipped_root() / path), replace=True)


def experiment_from(config: DictConfig, overrides: Sequence[str]) -> Experiment:
    """One composed job as a value. `overrides` is what was asked for it, in the user's words.

    Raises SweepError with everything that is wrong with this job, one line each.
    """
    node = _plain(config)
    axolotl = dict(node["axolotl"])
    gpu = Gpu(type=str(node["gpu"]["type"]), count=node["gpu"]["count"])
    data = DataChoice(**node["data"])
    tracking = TrackingChoice(**node["tracking"] | {"tags": tuple(node["tracking"]["tags"] or ())})
    problems = [
        *unknown_keys(axolotl, axolotl_fields()),
        *_gpu_problems(gpu, axolotl),
        *_data_problems(data, axolotl),
        *_tracking_problems(tracking),
    ]
    if problems:
        raise SweepError("\n".join(problems))
    return Experiment(
        overrides=tuple(one for one in overrides if parts(one).key not in REQUEST_KEYS),
        axolotl=_limited(axolotl, data.limit),
        gpu=gpu,
        data=data,
        tracking=tracking,
        executor=ExecutorChoice(**node["executor"]),
    )


def request_from(config: DictConfig, choices: Mapping[str, Any], keys: Iterable[str]) -> Request:
    """What the command as a whole was asked to do. Its name comes from its `choices` of config groups, else
    from the `keys` that its runs differ in (a single run: those that were asked for).
    """
    try:
        action = Action(config.action)
    except ValueError as error:
        raise SweepError(f"action={config.action}: it is one of {', '.join(Action)}.") from error
    return Request(
        action=action,
        name=config.name or _name(choices, keys),
        store=config.store,
        json=bool(config.json),
    )


def _name(choices: Mapping[str, Any], keys: Iterable[str]) -> str:
    named = choices.get("sweeps") or choices.get("experiment")
    if isinstance(named, str) and "," not in named:
        return named
    words = [key.removeprefix("axolotl.").replace(".", "_") for key in keys if key not in REQUEST_KEYS]
    return "-".join(dict.fromkeys(words))[:60].strip("-") or "default"


def _plain(config: DictConfig) -> dict[str, Any]:
    """Everything but Hydra's own node, interpolations resolved."""
    try:
        job = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        plain = OmegaConf.to_container(job, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise SweepError(_unresolved(error)) from error
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _unresolved(error: OmegaConfBaseException) -> str:
    key = error.full_key or "?"
    reason = str(error.msg or error).splitlines()[0]
    if "???" in reason or "Missing mandatory value" in reason:
        return f"{key} has no value yet: give it one, {key.removeprefix('axolotl.')}=..."
    return f"{key} cannot be resolved: {reason}"


def _gpu_problems(gpu: Gpu, axolotl: Mapping[str, Any]) -> list[str]:
    problems = []
    if not isinstance(gpu.count, int) or isinstance(gpu.count, bool) or gpu.count < 1:
        problems.append(f"gpu.count={gpu.count}: a run needs at least one process. Write gpu.count=1 or more.")
    if gpu.type == "cpu":
        problems += [
            f"{key} shards a model over GPUs, and gpu=cpu would train without it in silence. "
            f"Choose a GPU (gpu=a100_80gb), or take it out ({_without(key)})."
            for key in (*_SHARDED, *_PARALLEL)
            if axolotl.get(key) is not None and not (key in _PARALLEL and axolotl[key] == 1)
        ]
    return problems


def _without(key: str) -> str:
    return "deepspeed=none" if key == "deepspeed" else f"~{key}"


def _data_problems(data: DataChoice, axolotl: Mapping[str, Any]) -> list[str]:
    problems = []
    paths = [dataset.get("path") for dataset in _datasets(axolotl)]
    if None in paths:
        problems.append("A dataset has no path. dataset=local reads your own file: add data.path=FILE.")
    elif data.path is not None and data.path not in paths:
        problems.append(f"data.path={data.path} is not read by this dataset. Add dataset=local.")
    if data.limit is not None and (not isinstance(data.limit, int) or data.limit < 1):
        problems.append(f"data.limit={data.limit}: a number of rows, at least 1.")
    elif data.limit is not None:
        problems += _limit_problems(data.limit, axolotl)
    return problems


def _limit_problems(limit: int, axolotl: Mapping[str, Any]) -> list[str]:
    if not _datasets(axolotl):
        return [f"data.limit={limit} cuts `datasets`, and this run has none."]
    return [
        f"data.limit={limit} cannot cut datasets.{index}: its split is {split!r} already. Change one of the two."
        for index, dataset in enumerate(_datasets(axolotl))
        if any(mark in (split := _split(dataset)) for mark in "[+")
    ]


def _limited(axolotl: Mapping[str, Any], limit: int | None) -> Mapping[str, Any]:
    """Each dataset cut to its first rows by its split: Axolotl drops a num_samples without a word."""
    if limit is None:
        return axolotl
    cut = [{**dataset, "split": f"{_split(dataset)}[:{limit}]"} for dataset in _datasets(axolotl)]
    return {**axolotl, "datasets": cut}


def _datasets(axolotl: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [dataset for dataset in axolotl.get("datasets") or () if isinstance(dataset, Mapping)]


def _split(dataset: Mapping[str, Any]) -> str:
    return str(dataset.get("split") or "train")


def _tracking_problems(tracking: TrackingChoice) -> list[str]:
    modes = ("online", "offline", "disabled")
    if tracking.mode in modes:
        return []
    return [f"tracking.mode={tracking.mode}: it is one of {', '.join(modes)}.{did_you_mean(tracking.mode, modes)}"]
