"""Hydra's composed config -> Experiment and Request: resolved, plain, and checked by all that can be known here.

With the application and the plugins, the only place that knows Hydra and omegaconf.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, fields, replace
from typing import Any

import omegaconf
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from runner.errors import SweepError, did_you_mean
from runner.fields import axolotl_fields, unknown_keys
from runner.identity import is_address
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
    axolotl = _mapping(node, "axolotl")
    gpu = Gpu(**_fields(node, "gpu", Gpu))
    data = DataChoice(**_fields(node, "data", DataChoice))
    tracking = TrackingChoice(**_fields(node, "tracking", TrackingChoice))
    executor = ExecutorChoice(**_fields(node, "executor", ExecutorChoice))
    problems = [
        *unknown_keys(axolotl, axolotl_fields()),
        *_ownership_problems(axolotl),
        *_seed_problems(axolotl),
        *_gpu_problems(gpu, axolotl),
        *_data_problems(data, axolotl),
        *_tracking_problems(tracking),
        *_executor_problems(executor),
    ]
    if problems:
        raise SweepError("\n".join(problems))
    return Experiment(
        overrides=tuple(one for one in overrides if parts(one).key not in REQUEST_KEYS),
        axolotl=_limited(axolotl, data.limit),
        gpu=gpu,
        data=data,
        tracking=replace(tracking, tags=tuple(tracking.tags or ())),
        executor=executor,
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
        name=_name(choices, keys) if config.name is None else str(config.name),
        store=None if config.store is None else str(config.store),
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


def _mapping(node: Mapping[str, Any], name: str) -> dict[str, Any]:
    values = node.get(name)
    if not isinstance(values, dict):
        raise SweepError(f"{name} is {values!r}; it is a mapping of keys. Set one of them: {name}.KEY=value.")
    return dict(values)


def _fields(node: Mapping[str, Any], name: str, kind: type[Any]) -> dict[str, Any]:
    """A config node with the keys of the dataclass that it becomes, and no others."""
    values, known = _mapping(node, name), [field.name for field in fields(kind)]
    missing = [f"{name}.{one.name}" for one in fields(kind) if one.default is MISSING and one.name not in values]
    if missing:
        raise SweepError(f"The config has no {', '.join(missing)}: it is needed, so it cannot be taken out.")
    for key in values:
        if key not in known:
            raise SweepError(f"{name} has no {key}.{did_you_mean(key, known)} It has: {', '.join(known)}.")
    return values


def _unresolved(error: OmegaConfBaseException) -> str:
    key = error.full_key or "?"
    reason = str(error.msg or error).splitlines()[0]
    if "???" in reason or "Missing mandatory value" in reason:
        return f"{key} has no value yet: give it one, {key.removeprefix('axolotl.')}=..."
    return f"{key} cannot be resolved: {reason}"


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


def _gpu_problems(gpu: Gpu, axolotl: Mapping[str, Any]) -> list[str]:
    problems = []
    if not _is_integer(gpu.count, least=1):
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
    if data.seed is not None and not _is_integer(data.seed):
        problems.append(f"data.seed={data.seed}: a whole number, or null for the run's own seed.")
    if data.limit is not None and not _is_integer(data.limit, least=1):
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
    problems = []
    modes = ("online", "offline", "disabled")
    if tracking.mode not in modes:
        meant = did_you_mean(str(tracking.mode), modes)
        problems.append(f"tracking.mode={tracking.mode}: it is one of {', '.join(modes)}.{meant}")
    if isinstance(tracking.tags, str):
        problems.append(f"tracking.tags={tracking.tags}: a list. Write tracking.tags=[{tracking.tags}].")
    return problems


def _executor_problems(executor: ExecutorChoice) -> list[str]:
    problems = []
    if executor.parallel is not None and not _is_integer(executor.parallel, least=1):
        problems.append(f"executor.parallel={executor.parallel}: a number of runs at a time, at least 1, or null.")
    if not isinstance(executor.warm, bool):
        problems.append(f"executor.warm={executor.warm}: true or false.")
    return problems


def _is_integer(value: object, least: int | None = None) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and (least is None or value >= least)
