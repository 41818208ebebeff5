"""Applies the entries of the table: the only entry point for all other packages.

A patch that corrects applies on every device; a patch that only saves time applies on the CPU alone.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from modal_app.patches.patch import CorrectionMissing, Moment, Patch, Purpose, TargetGone
from modal_app.patches.table import PATCHES
from modal_app.store.step import Device, Step

PAGE = "docs/upgrading.md"
_skipped: set[str] = set()
"""Names of the skipped patches that this process, or the one that it was forked from, has reported already."""


def patches_at(moment: Moment, device: Device | None) -> tuple[Patch, ...]:
    """The patches of a moment, in the order of the table. `device`: that of the step; None for no step, and then
    without patches that save time."""
    return tuple(
        patch
        for patch in PATCHES
        if patch.moment is moment and (patch.purpose is Purpose.CORRECTS or device is Device.CPU)
    )


def apply_launcher_patches() -> None:
    _apply(Moment.LAUNCH, Device.CPU)


def import_patches(device: Device) -> contextlib.AbstractContextManager[None]:
    """The block must contain Axolotl's imports."""
    return _applied(Moment.IMPORT, device)


def apply_fork_patches() -> None:
    _apply(Moment.FORK, None)


def be_offline_as(variables: Mapping[str, str]) -> None:
    """Make the imported libraries offline or online, as these variables say."""
    _apply(Moment.ENVIRONMENT, None, variables)


def apply_schema_patches() -> None:
    """Configs are validated on the CPU, whatever GPU they are for."""
    _apply(Moment.SCHEMA, Device.CPU)


def block_network() -> None:
    """For the rest of this process."""
    _apply(Moment.VERDICT, None)


def apply_cpu_rank_patches() -> None:
    _apply(Moment.CPU_RANKS, Device.CPU)


def cache_datasets_in(folder: Path) -> None:
    _apply(Moment.PREPROCESS, None, folder)


def note_where_rows_are_from(
    note_dataset: Callable[[str, Mapping[str, Any], Any, bool], None],
    note_text: Callable[[Mapping[str, list[Any]]], None],
) -> contextlib.AbstractContextManager[None]:
    """Inside the block, `note_dataset` is called with each tokenized dataset: its split, its config, its rows, and
    whether each row is a document of its own, except for rows of the texts that `note_text` is called with. `note_text`
    is called with the rows of each text that is trained on in full, in the process that tokenizes it."""
    return _applied(Moment.TOKENIZING, None, note_dataset, note_text)


def apply_run_patches(step: Step) -> None:
    """Apply the patches for a run: after all imports, before Axolotl is called."""
    _apply(Moment.RUN, step.device, step)


def apply_tracking_patches(go_offline: Callable[[str], None]) -> None:
    """Before Axolotl is called, for a run that W&B tracks online. `go_offline` is called with the reason."""
    _apply(Moment.TRACKING, None, go_offline)


def apply_trainer_patches(trainer: Any, origin_step: int | None) -> None:
    """`origin_step`: the step of another run's checkpoint, if the run continues from one."""
    _apply(Moment.TRAINER, None, trainer, origin_step)


def apply_training_patches(trainer: Any, unlogged: Mapping[str, Any] | None) -> None:
    """`unlogged`: the loss since the last log line, from the checkpoint that training resumes from."""
    _apply(Moment.TRAINING, None, trainer, unlogged)


def show_evaluated_batches(trainer: Any, show: Callable[..., None]) -> None:
    """`show` is called with each batch that the trainer evaluates (`training.show_evaluated_batches`)."""
    _apply(Moment.EVALUATING, None, trainer, show)


def hub_cache_in(folder: Path) -> contextlib.AbstractContextManager[None]:
    """Inside the block, downloads from the hub go to this folder."""
    return _applied(Moment.TASKS, None, folder)


def _apply(moment: Moment, device: Device | None, *arguments: Any) -> None:
    with _applied(moment, device, *arguments):
        pass


@contextlib.contextmanager
def _applied(moment: Moment, device: Device | None, *arguments: Any) -> Iterator[None]:
    """Raises CorrectionMissing."""
    with contextlib.ExitStack() as stack:
        for patch in patches_at(moment, device):
            try:
                block = patch.apply(*arguments)
                if block is not None:
                    stack.enter_context(block)
            except TargetGone as gone:
                _skip(patch, gone)
        yield


def _skip(patch: Patch, gone: TargetGone) -> None:
    seen = f"{patch.library} {_installed_version(patch.library)} is installed, the patch is for {patch.version}: {gone}"
    if patch.purpose is Purpose.CORRECTS:
        raise CorrectionMissing(f"the patch '{patch.name}' cannot be applied and is needed ({seen}). See {PAGE}")
    if patch.name not in _skipped:
        _skipped.add(patch.name)
        print(
            f"axosweep: skipping the patch '{patch.name}', which only saves time ({seen})", file=sys.stderr, flush=True
        )


def _installed_version(library: str) -> str:
    match library:
        case "python":
            return platform.python_version()
        case "glibc":
            return " ".join(platform.libc_ver()) or "another C library"
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return "of no known version"
