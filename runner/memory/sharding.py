"""The `deepspeed` and `fsdp_config` keys of an Axolotl config -> what several GPUs share. Reads DeepSpeed's files."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.config.numbers import number
from runner.memory.stack import Sharding

Config = Mapping[str, Any]

ZERO_BUCKET = 500_000_000
"""DeepSpeed's default reduce_bucket_size."""
ZERO_LIVE = 1_000_000_000
"""DeepSpeed's default stage3_max_live_parameters."""
SHARING_WEIGHTS = (Sharding.ZERO3, Sharding.FSDP)


@dataclass(frozen=True, slots=True)
class Shards:
    """How a config uses several GPUs; Stack explains the fields."""

    kind: Sharding = Sharding.NONE
    shards: int = 1
    reshards: bool = True
    loads_whole: bool = False
    """Each GPU loads the model itself, if bitsandbytes quantizes it; otherwise it is loaded into main memory."""
    offload_optimizer: bool = False
    offload_weights: bool = False
    bucket: int | None = 0
    buckets: int = 1
    live: int = 0


def with_files(config: Config) -> Config:
    """The config with its DeepSpeed settings in place of their file's path."""
    if not isinstance(config.get("deepspeed"), str):
        return config
    settings = deepspeed_of(config)
    return {**config, "deepspeed": settings} if settings else config


def deepspeed_of(config: Config) -> Mapping[str, Any]:
    """DeepSpeed's settings, inline or from their file; empty when there are none, or the file cannot be read."""
    value = config.get("deepspeed")
    if isinstance(value, str):
        try:
            value = json.loads(Path(value).expanduser().read_bytes())
        except (OSError, ValueError, RuntimeError):  # RuntimeError: ~someone who has no home, or JSON that is too deep
            return {}
    return value if isinstance(value, Mapping) else {}


def zero_of(config: Config) -> Mapping[str, Any]:
    """The settings of ZeRO; empty when there are none."""
    zero = deepspeed_of(config).get("zero_optimization")
    return zero if isinstance(zero, Mapping) else {}


def zero_stage(config: Config) -> int | None:
    """0 without ZeRO; None for a stage that is no number."""
    return _size(zero_of(config).get("stage", 0))


def fsdp_of(config: Config) -> Mapping[str, Any]:
    """The settings of FSDP by their present names: earlier versions of Axolotl have the prefix fsdp_."""
    settings = config.get("fsdp_config")
    return (
        {str(key).removeprefix("fsdp_"): one for key, one in settings.items()} if isinstance(settings, Mapping) else {}
    )


def offloads(node: Any) -> bool:
    """Whether ZeRO's `offload_optimizer` or `offload_param` is on."""
    return isinstance(node, Mapping) and node.get("device") not in (None, "none")


def sharding_of(config: Config, count: int) -> Shards | str:
    """What `count` GPUs share, or the reason why that is unknown."""
    found = _shards(config, count)
    if isinstance(found, Shards) and found.kind in SHARING_WEIGHTS and config.get("load_in_8bit"):
        return "bitsandbytes documents no sharding of 8-bit weights (load_in_8bit with ZeRO-3 or FSDP)"
    return found


def sharers_of_weights(config: Config, count: int) -> int:
    """How many of `count` GPUs have one copy of the weights between them."""
    found = _shards(config, count)
    if isinstance(found, str):
        return count  # whatever it is, they share no more than that
    return found.shards if found.kind in SHARING_WEIGHTS else 1


def offloads_weights(config: Config) -> bool:
    found = _shards(config, 1)
    return isinstance(found, str) or found.offload_weights


def _shards(config: Config, count: int) -> Shards | str:
    if config.get("deepspeed"):
        return _deepspeed(config, count)
    return _fsdp(config, count) if config.get("fsdp_config") else Shards()


def _deepspeed(config: Config, count: int) -> Shards | str:
    if not deepspeed_of(config):
        return f"the file deepspeed={config['deepspeed']} could not be read"
    zero = zero_of(config)
    stages: dict[int | None, Sharding] = {0: Sharding.NONE, 1: Sharding.ZERO1, 2: Sharding.ZERO2, 3: Sharding.ZERO3}
    kind = stages.get(zero_stage(config))
    if kind is None:
        return f"deepspeed.zero_optimization.stage={zero.get('stage')} is unknown"
    if kind is Sharding.NONE:
        return Shards()
    live = _size(zero.get("stage3_max_live_parameters", ZERO_LIVE))
    return Shards(
        kind=kind,
        shards=count,
        offload_optimizer=offloads(zero.get("offload_optimizer")),
        offload_weights=offloads(zero.get("offload_param")),
        bucket=_size(zero.get("reduce_bucket_size", ZERO_BUCKET)),  # auto in transformers: hidden squared
        buckets=2 if zero.get("overlap_comm") and kind is not Sharding.ZERO3 else 1,
        live=ZERO_LIVE if live is None else live,
    )


def _size(value: Any) -> int | None:
    """A number in DeepSpeed's settings; None for `auto`, and for what DeepSpeed will refuse."""
    try:
        return int(float(value))
    except (TypeError, ValueError, OverflowError):
        return None


def _fsdp(config: Config, count: int) -> Shards:
    fsdp = fsdp_of(config)
    shards = integer(config, "dp_shard_size", count // max(1, integer(config, "dp_replicate_size", 1)))
    offload = bool(fsdp.get("offload_params"))
    return Shards(
        kind=Sharding.FSDP,
        shards=max(1, min(shards, count)),
        reshards=fsdp.get("reshard_after_forward") is not False,
        loads_whole=not fsdp.get("cpu_ram_efficient_loading"),
        offload_optimizer=offload,
        offload_weights=offload,
    )


def integer(config: Config, key: str, default: int) -> int:
    """A positive count in a config; the default if there is none."""
    value = number(config.get(key))
    return int(value) if value is not None and 1 <= value < math.inf else default
