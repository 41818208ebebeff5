"""What each kind of step imports of Axolotl, and how: most of the seconds of a short run."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Iterator, Sequence

from modal_app.patches.apply import be_offline_as, import_patches
from modal_app.process.native_code import without_fetched_code
from modal_app.store.step import Device, StepKind

PREPROCESS = ("axolotl.cli.preprocess", "modal_app.steps.plugin", "modal_app.steps.preprocess")
VALIDATE = ("axolotl.utils.config", "axolotl.integrations.base")
TRAIN = (
    "axolotl.cli.train",
    "axolotl.cli.config",
    "axolotl.cli.checks",
    "axolotl.train",
    "axolotl.loaders",
    "axolotl.core.builders",
    "axolotl.core.trainers",
    "axolotl.common.datasets",
    "axolotl.utils.trainer",
    "axolotl.utils.callbacks",
    "axolotl.integrations.context_parallel",
    "axolotl.integrations.expert_parallel",
    "axolotl.prompt_strategies.chat_template",
    "modal_app.steps.plugin",
)
FOLLOW_UP = ("axolotl.cli.config", "axolotl.loaders", "modal_app.steps.plugin", "peft")
OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")


def load(modules: Sequence[str], device: Device, *, optional: Sequence[str] = ()) -> None:
    """Import what is not imported yet, and the modules of `optional` that exist. On the CPU with the patches that save
    time.

    No import uses the network, neither now nor later. Afterwards, the environment of this process decides whether it is
    offline.
    """
    os.environ |= without_fetched_code(os.environ)
    missing = [name for name in modules if name not in sys.modules]
    if missing or optional:
        with _offline_environment(), import_patches(device):
            for name in missing:
                importlib.import_module(name)
            for name in optional:
                with contextlib.suppress(ImportError):
                    importlib.import_module(name)
    be_offline_as(os.environ)


def for_kind(kind: StepKind) -> Sequence[str]:
    match kind:
        case StepKind.PREPROCESS:
            return PREPROCESS
        case StepKind.TRAIN:
            return TRAIN
        case StepKind.MERGE | StepKind.INFER | StepKind.EVALUATE:
            return FOLLOW_UP


@contextlib.contextmanager
def _offline_environment() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in OFFLINE}
    os.environ |= dict.fromkeys(OFFLINE, "1")
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
