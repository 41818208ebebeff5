"""What spares a run, fresh or forked, what its libraries do twice, or slowly, or for what it does not use.

Nothing here changes what is computed, or what is left.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import sys
import time
from typing import Any

from modal_app.patches import lean_imports
from modal_app.store.step import Step


def spare(step: Step) -> None:
    """Before Axolotl is called, once all is imported."""
    if not step.config.get("deepspeed"):
        leave_out_deepspeed()
    if step.tracking.mode != "disabled":
        list_packages_quickly()
        look_often_for_the_service()


def leave_out_deepspeed() -> None:
    """For a run without DeepSpeed: accelerate would import all of it whenever it unwraps a model, to see whether that
    is one of DeepSpeed's.
    """
    from accelerate.utils import other

    other.is_deepspeed_available = lambda: False


def list_packages_quickly() -> None:
    """For a run that W&B tracks: it parses the metadata of all packages, descriptions and all, for names and versions.

    A third of a second. A package that has no name, or nothing that can be read, is in nobody's list.
    """
    util: Any = sys.modules.get("wandb.util")  # not imported by us: whoever tracks has imported it
    if hasattr(util, "working_set"):
        util.working_set = lambda: itertools.starmap(util.InstalledDistribution, lean_imports.installed())


def look_often_for_the_service() -> None:
    """For a run that W&B tracks: its service is there after 20 ms, and is looked for at once and every 0.2 s after."""
    if "wandb" not in sys.modules:
        return
    with contextlib.suppress(ModuleNotFoundError):  # another W&B may look for it elsewhere
        port_file: Any = importlib.import_module("wandb.sdk.lib.service.service_port_file")
        port_file._SLEEP = _sleep_at_most_5_ms


def _sleep_at_most_5_ms(seconds: float) -> None:
    time.sleep(min(seconds, 0.005))
