"""The type of the table's entries, and the errors when a library no longer has what a patch changes."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Purpose(StrEnum):
    CORRECTS = "corrects"
    """Without it something wrong would be recorded or done. Applies on every device. If its target is gone and it is
    needed, the step fails."""
    SAVES_TIME = "saves time"
    """Changes no result. Applies only on the CPU, where it has been measured. If its target is gone, the run continues
    without it."""


class Moment(StrEnum):
    """When a patch is applied, and the arguments of its function."""

    LAUNCH = "before the launcher reads config files: nothing"
    IMPORT = "around the imports of a trainer: nothing; returns a context manager"
    FORK = "in a child of the preloaded trainer: nothing"
    ENVIRONMENT = "after the imports, and when the environment has changed: the environment's variables"
    SCHEMA = "before configs are validated: nothing"
    VERDICT = "in a process that only validates configs: nothing"
    CPU_RANKS = "in each of several ranks on the CPU: nothing"
    PREPROCESS = "before a dataset is tokenized: a folder of the attempt's own"
    TOKENIZING = (
        "around the tokenization of a dataset: what to call with each dataset and with the rows of each text; "
        "returns a context manager"
    )
    RUN = "before Axolotl trains: the step"
    TRACKING = "before Axolotl trains, if W&B tracks the run online: what to call, with the reason, to go offline"
    TRAINER = "after Axolotl has created its trainer: the trainer, and the step of another run's checkpoint, or None"
    TRAINING = "when training begins: the trainer, and the loss not yet logged in the checkpoint, or None"
    EVALUATING = "after Axolotl has created its trainer: the trainer, and what to call with each evaluated batch"
    TASKS = "around an evaluation on tasks: a folder of the attempt's own; returns a context manager"


@dataclass(frozen=True, slots=True)
class Patch:
    name: str
    """Its name in messages."""
    library: str
    """The name of the distribution, or `python` or `glibc`."""
    version: str
    """The version that it was last tested with: the locked one."""
    moment: Moment
    purpose: Purpose
    changes: str
    why: str
    saves: str
    """As measured; empty for a correction."""
    test: str
    """`path::name` of the test that fails when the patch has no effect on the locked version."""
    apply: Callable[..., AbstractContextManager[None] | None]
    """Raises TargetGone."""


class TargetGone(Exception):
    """The library no longer has what the patch changes. The message says what is missing."""


class CorrectionMissing(Exception):
    """A correction that is needed cannot be applied."""


def module_with(name: str, *attributes: str) -> Any:
    """Import a module that must have these attributes. Raises TargetGone."""
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise TargetGone(f"there is no module {name}") from error
    require(module, name, *attributes)
    return module


def require(owner: Any, name: str, *attributes: str) -> None:
    """Raises TargetGone unless the object has these attributes. `name`: of the object, for the message."""
    for attribute in attributes:
        if not hasattr(owner, attribute):
            raise TargetGone(f"{name} has no {attribute}")
