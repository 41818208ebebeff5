"""Preload the trainer, then run a step as a fork of it does. Print, as JSON, which variables the imports read, what
their patches left out, which flags say offline, whether CUDA was initialized, what the step imports for itself, and
what imports later still get.

`python -P preload_script.py ROOT STORE < step.json`, with the trainer's Python.
"""

from __future__ import annotations

import gc
import importlib
import importlib.metadata
import json
import os
import sys
from pathlib import Path
from typing import Any

UNUSED = ("sklearn", "scipy.optimize", "scipy.stats", "evaluate.loading")
LOSSES = ("loss_for_object_detection", "loss_rt_detr")
ASSIGNMENT = [[1, 2], [2, 0]]


def reads() -> list[int]:
    """How often the packages' metadata was read, and how often the cached metadata was used."""
    kept: Any = importlib.metadata.packages_distributions
    return [kept.cache_info().misses, kept.cache_info().hits] if hasattr(kept, "cache_info") else []


def preloaded() -> dict[str, Any]:
    """Each variable that the imports read, with whether garbage was collected when it was read first."""
    from modal_app.process.imports import load
    from modal_app.store.step import Device
    from modal_app.warm import preload

    seen: dict[str, bool] = {}
    plain = type(os.environ)

    class Watched(plain):  # type: ignore[valid-type, misc]  # which class it is, is only known here
        def __getitem__(self, name: str) -> str:
            seen.setdefault(name, gc.isenabled())
            return str(super().__getitem__(name))

        def __contains__(self, name: object) -> bool:
            seen.setdefault(str(name), gc.isenabled())
            return bool(super().__contains__(name))

    os.environ.__class__ = Watched
    load(preload.EVERYTHING, Device.CPU, optional=preload.LATE)
    found = {"collects": gc.isenabled(), "frozen": gc.get_freeze_count(), "packages read": reads()}
    preload.preload()
    os.environ.__class__ = plain
    return found | {"read": seen}


def left_out() -> dict[str, Any]:
    from transformers import utils
    from transformers.generation import candidate_generator
    from transformers.utils import import_utils

    for name in LOSSES:
        importlib.import_module(f"transformers.loss.{name}")
    return {
        "known packages": import_utils.PACKAGE_DISTRIBUTION_MAPPING,
        "imported": [name for name in UNUSED if name in sys.modules],
        "asks an assistant": candidate_generator.is_sklearn_available(),
        "available": [utils.is_sklearn_available(), utils.is_scipy_available()],
    }


def used_later() -> dict[str, Any]:
    load = importlib.import_module
    scipy, evaluate, callbacks = load("scipy.optimize"), load("evaluate"), load("axolotl.utils.callbacks")
    load("sklearn.metrics")
    places = [scipy, *(load(f"transformers.loss.{name}") for name in LOSSES)]
    return {
        "assigned": [[part.tolist() for part in place.linear_sum_assignment(ASSIGNMENT)] for place in places],
        "evaluate": callbacks.evaluate.load is evaluate.load,
        "evaluate was imported": "evaluate.loading" in sys.modules,
    }


def offline_flags() -> list[str]:
    return sorted(
        f"{name}.{key}"
        for name, module in list(sys.modules.items())
        for key, value in list(vars(module).items())
        if isinstance(value, bool) and "OFFLINE" in key
    )


def run(store: Path) -> dict[str, Any]:
    """The step on stdin."""
    from modal_app import worker
    from modal_app.process.attempt import base_environment
    from modal_app.store.layout import Store
    from modal_app.store.step import Device, Step

    os.environ |= base_environment(Device.CPU)
    step, before = Step.from_json(sys.stdin.read()), set(sys.modules)
    code = worker.exit_code(step, Store(store), warm=True)
    return {"code": code, "late": sorted(set(sys.modules) - before)}


def main(root: str, store: str) -> dict[str, Any]:
    sys.path.insert(0, root)
    found: dict[str, Any] = {"packages": importlib.metadata.packages_distributions()}
    found |= preloaded() | left_out() | {"flags": offline_flags()}
    import torch

    return found | {"woken": torch.cuda.is_initialized()} | run(Path(store)) | used_later()


if __name__ == "__main__":
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what imports print is not part of it
    json.dump(main(*sys.argv[1:]), answer)
    answer.flush()
