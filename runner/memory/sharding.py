"""The `deepspeed` and `fsdp_config` keys of an Axolotl config -> what several GPUs share. Reads DeepSpeed's files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.memory.stack import Sharding

Config = Mapping[str, Any]

ZERO_BUCKET = 500_000_000
"""DeepSpeed's default reduce_bucket_size."""
ZERO_LIVE = 1_000_000_000
"""DeepSpeed's default stage3_max_live_parameters."""


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
    named = config.get("deepspeed")
    if not isinstance(named, str):
        return config
    try:
        settings = json.loads(Path(named).expanduser().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return config
    return {**config, "deepspeed": settings}


def sharding_of(config: Config, count: int) -> Shards | str:
    """What `count` GPUs share, or the reason why that is unknown."""
    if config.get("deepspeed"):
        found = _deepspeed(config["deepspeed"], count)
    elif config.get("fsdp_config"):
        found = _fsdp(config, count)
    else:
        return Shards()
    if isinstance(found, Shards) and found.kind in (Sharding.ZERO3, Sharding.FSDP) and config.get("load_in_8bit"):
        return "bitsandbytes documents no sharding of 8-bit weights (load_in_8bit with ZeRO-3 or FSDP)"
    return found


def _deepspeed(settings: Any, count: int) -> Shards | str:
    if not isinstance(settings, Mapping):
        return f"the file deepspeed={settings} could not be read"
    zero = settings.get("zero_optimization") or {}
    stages = {0: Sharding.NONE, 1: Sharding.ZERO1, 2: Sharding.ZERO2, 3: Sharding.ZERO3}
    kind = stages.get(zero.get("stage", 0))
    if kind is None:
        return f"deepspeed.zero_optimization.stage={zero.get('stage')} is unknown"
    if kind is Sharding.NONE:
        return Shards()
    bucket = zero.get("reduce_bucket_size", ZERO_BUCKET)
    live = zero.get("stage3_max_live_parameters", ZERO_LIVE)
    return Shards(
        kind=kind,
        shards=count,
        offload_optimizer=_to_cpu(zero, "offload_optimizer"),
        offload_weights=_to_cpu(zero, "offload_param"),
        bucket=int(float(bucket)) if bucket != "auto" else None,  # transformers: hidden squared
        buckets=2 if zero.get("overlap_comm") and kind is not Sharding.ZERO3 else 1,
        live=int(float(live)) if live != "auto" else ZERO_LIVE,
    )


def _to_cpu(zero: Mapping[str, Any], key: str) -> bool:
    return (zero.get(key) or {}).get("device", "none") in ("cpu", "nvme")


def _fsdp(config: Config, count: int) -> Shards | str:
    fsdp = config["fsdp_config"]
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
    value = config.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else default
