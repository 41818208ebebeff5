"""What a trainer knows, and has not imported, after imports with the patches; prints it as JSON.

Run with the trainer's Python and this checkout in PYTHONPATH.
"""

from __future__ import annotations

import gc
import importlib
import importlib.metadata
import json
import os
import sys
from typing import Any

from modal_app.patches.apply import import_patches
from modal_app.store.step import Device

UNUSED = ("sklearn", "scipy.optimize", "scipy.stats", "evaluate.loading")


def reads() -> list[int]:
    """How often the packages' metadata was read, and how often the cached metadata was used."""
    kept: Any = importlib.metadata.packages_distributions
    return [kept.cache_info().misses, kept.cache_info().hits] if hasattr(kept, "cache_info") else []


def main() -> dict[str, Any]:
    found: dict[str, Any] = {"packages": importlib.metadata.packages_distributions()}
    with import_patches(Device.CPU):
        collects = gc.isenabled()
        load = importlib.import_module
        utils, import_utils = load("transformers.utils"), load("transformers.utils.import_utils")
        candidates = load("transformers.generation.candidate_generator")
        losses = [load(f"transformers.loss.{name}") for name in ("loss_for_object_detection", "loss_rt_detr")]
        callbacks = load("axolotl.utils.callbacks")
    found |= {
        "collects": [collects, gc.isenabled()],
        "frozen": gc.get_freeze_count(),
        "read": reads(),
        "known packages": import_utils.PACKAGE_DISTRIBUTION_MAPPING,
        "imported": [name for name in UNUSED if name in sys.modules],
        "asks an assistant": candidates.is_sklearn_available(),
        "available": [utils.is_sklearn_available(), utils.is_scipy_available()],
    }
    rows, columns = load("scipy.optimize").linear_sum_assignment([[1, 2], [2, 0]])
    found["assigned"] = [rows.tolist(), columns.tolist()]
    found["assigned by losses"] = [
        [part.tolist() for part in loss.linear_sum_assignment([[1, 2], [2, 0]])] for loss in losses
    ]
    load("sklearn.metrics")
    found["evaluate"] = callbacks.evaluate.load is load("evaluate").load
    found["evaluate was imported"] = "evaluate.loading" in sys.modules
    return found


if __name__ == "__main__":
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # the output of imports is not part of it
    json.dump(main(), answer)
    answer.flush()
