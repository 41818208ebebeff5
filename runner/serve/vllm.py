"""Chosen models -> the settings of vLLM, with a container's paths. Pure.

vLLM has one base model, and loads only plain LoRA adapters.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modal_app.cloud.job import CACHE_MOUNT, RUNS_MOUNT
from modal_app.serving.spec import ServedModel
from modal_app.serving.vllm import RANKS, Vllm
from modal_app.store.hub import HubItem, is_hub_name
from modal_app.store.layout import Store
from runner.config.gpus import gpu_kind
from runner.errors import SweepError
from runner.serve.choice import ServeSelection

UNABLE = {
    "peft_use_dora": "DoRA",
    "lora_modules_to_save": "complete modules next to the adapter",
    "peft_layers_to_transform": "some layers only",
}
"""Keys of adapters that vLLM does not load, or loads differently than they were trained."""


def vllm_of(chosen: ServeSelection, gpus: int, *, half: bool) -> Vllm:
    """The settings of vLLM. Raises SweepError for models that one vLLM cannot serve together, or not at all."""
    runs = [model for model in chosen.models if model.adapter is not None or model.weights is not None]
    if len({model.shares for model in runs}) > 1:
        raise SweepError(
            "vLLM has one base model, but these runs have several (or load or prompt it differently, or are complete "
            "models). Start a server for each base model."
        )
    first, config = runs[0], runs[0].config
    trusts = bool(config.get("trust_remote_code"))
    tokenizer = _there(first.adapter or first.weights or "", chosen.store)
    if first.weights is not None:
        return Vllm(tokenizer, first.names, tokenizer, {}, gpus=gpus, half=half, trusts_remote_code=trusts)
    adapters = {name: _there(run.adapter or "", chosen.store) for run in runs for name in run.names}
    for run in runs:
        _refuse_adapter(run)
    rank = max(int(run.config.get("lora_r") or 0) for run in runs)
    (base,) = (model.names for model in chosen.models if model not in runs)
    return Vllm(_base_there(config), base, tokenizer, adapters, rank, gpus, half, trusts)


def gpu_of(chosen: ServeSelection, requested: str | None) -> tuple[str, int]:
    """The name in conf/gpu and the count: as requested, or those that the runs were trained on. Raises SweepError
    without a GPU."""
    if requested is not None:
        name, colon, count = requested.partition(":")
        if colon and not (count.isdecimal() and int(count)):
            raise SweepError(f"--gpu {requested}: expected a GPU of conf/gpu, for several with a count: --gpu h100:2")
        return gpu_kind(name).name, int(count or 1)
    kinds = {(one.gpu, int(one.identity.get("gpu", {}).get("count") or 1)) for one in chosen.subjects}
    if len(kinds) > 1 or "cpu" in {name for name, _ in kinds}:
        trained = ", ".join(sorted({name for name, _ in kinds}))
        raise SweepError(f"vLLM needs a GPU, but these runs were trained on {trained}. Name one: --gpu l4")
    return kinds.pop()


def _base_there(config: Mapping[str, Any]) -> str:
    """The base model on the cache Volume."""
    base = str(config["base_model"])
    if not is_hub_name(base):
        return f"{CACHE_MOUNT}/{base}"
    return f"{CACHE_MOUNT}/hub/{HubItem(base, str(config['revision_of_model'])).snapshot}"


def _there(folder: str, store: Store) -> str:
    """A folder of the mirror, on the runs Volume."""
    return f"{RUNS_MOUNT}/{Path(folder).relative_to(store.root).as_posix()}"


def _refuse_adapter(run: ServedModel) -> None:
    key = run.names[0]
    for name, what in UNABLE.items():
        if run.config.get(name):
            raise SweepError(
                f"vLLM does not serve the adapter of {key}: it has {what} ({name}). Serve it merged:\n"
                f"  axosweep merge {key}\n  axosweep serve {key} --merged"
            )
    if int(run.config.get("lora_r") or 0) > RANKS[-1]:
        raise SweepError(
            f"vLLM does not serve the adapter of {key}: its rank is {run.config['lora_r']}, over {RANKS[-1]}. Serve "
            f"it merged: axosweep merge {key}, then axosweep serve {key} --merged"
        )
