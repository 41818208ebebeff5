"""What an entry of the table is, and what happens when the library no longer has what it changes."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Purpose(StrEnum):
    CORRECTS = "corrects"
    """Without it something wrong would be recorded or done. Applies on every device; where its target is gone and it
    is needed, the step fails."""
    SAVES_TIME = "saves time"
    """Changes nothing that is computed. Applies on the CPU only, where it has been measured; where its target is gone
    the run goes on without it."""


class Moment(StrEnum):
    """When a patch is applied, and what its function is called with."""

    LAUNCH = "before the launcher reads config files: nothing"
    IMPORT = "around the imports of a trainer: nothing; returns a context manager"
    FORK = "in a child of the preloaded trainer: nothing"
    ENVIRONMENT = "after the imports, and when the environment has changed: the environment's variables"
    SCHEMA = "before configs are validated: nothing"
    VERDICT = "in a process that does nothing but validate configs: nothing"
    CPU_RANKS = "in each of several ranks on the CPU: nothing"
    PREPROCESS = "before a dataset is tokenized: a folder of the attempt's own"
    RUN = "before Axolotl trains: the step"
    TRAINER = "once Axolotl has made its trainer: the trainer, and the step of the checkpoint of another run, or None"
    TRAINING = "when training begins: the trainer, and what the checkpoint says of the loss not yet logged, or None"
    TASKS = "around an evaluation on tasks: a folder of the attempt's own; returns a context manager"


@dataclass(frozen=True, slots=True)
class Patch:
    name: str
    """What messages call it."""
    library: str
    """The distribution; `python` and `glibc` stand for themselves."""
    version: str
    """That it was written for or last seen to work on: the locked one."""
    moment: Moment
    purpose: Purpose
    changes: str
    why: str
    saves: str
    """As measured; empty for one that corrects."""
    test: str
    """`path::name` of the test that fails when it no longer has its effect on the locked version."""
    apply: Callable[..., AbstractContextManager[None] | None]
    """Raises TargetGone."""


class TargetGone(Exception):
    """The library has no such thing any more. Says what is missing."""


class CorrectionMissing(Exception):
    """A patch that corrects cannot be applied where it is needed."""


def module_with(name: str, *attributes: str) -> Any:
    """The module, imported, which has these attributes. Raises TargetGone."""
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise TargetGone(f"there is no module {name}") from error
    require(module, name, *attributes)
    return module


def require(owner: Any, called: str, *attributes: str) -> None:
    """Raises TargetGone unless the object has these attributes."""
    for attribute in attributes:
        if not hasattr(owner, attribute):
            raise TargetGone(f"{called} has no {attribute}")
