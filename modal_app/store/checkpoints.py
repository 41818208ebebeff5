"""Which checkpoints may be resumed from. Axolotl takes the highest number, unchecked; here a checkpoint counts only
with a marker, written after everything else in it, that says how long each of its files is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from modal_app.store.read_json import read_json
from modal_app.store.step import write_atomically

MARKER = "complete.json"
PREFIX = "checkpoint-"
ASIDE = "broken-"


def mark_complete(checkpoint: Path, unlogged: Mapping[str, float]) -> None:
    """Declare a checkpoint whole. `unlogged` is the loss since the last log line, for the resumed run to go on with."""
    sizes = {
        path.relative_to(checkpoint).as_posix(): path.stat().st_size
        for path in sorted(checkpoint.rglob("*"))
        if path.is_file() and path.name != MARKER
    }
    write_atomically(checkpoint / MARKER, json.dumps({"files": sizes, "unlogged": dict(unlogged)}))


def is_complete(checkpoint: Path) -> bool:
    files = read_json(checkpoint / MARKER, lenient=True).get("files")
    if not files:
        return False
    found = {name: checkpoint / name for name in files}
    return all(path.is_file() and path.stat().st_size == files[name] for name, path in found.items())


def unlogged(checkpoint: Path) -> dict[str, float]:
    found: dict[str, float] = read_json(checkpoint / MARKER, lenient=True).get("unlogged", {})
    return found


def step_number(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix(PREFIX))


def all_checkpoints(model: Path) -> list[Path]:
    """Oldest first."""
    found = [path for path in model.glob(f"{PREFIX}*") if path.name.removeprefix(PREFIX).isdecimal()]
    return sorted(found, key=step_number)


def newest_step(model: Path) -> int:
    """The step of the newest whole checkpoint; 0 when there is none."""
    whole = [path for path in all_checkpoints(model) if is_complete(path)]
    return step_number(whole[-1]) if whole else 0


def set_aside_unusable(model: Path) -> Path | None:
    """Move what must not be resumed from out of Axolotl's sight; return the checkpoint it will take.

    Besides broken ones, that is a newest checkpoint which is already at its last step: resumed, it would train one
    step too many.
    """
    whole = []
    for checkpoint in all_checkpoints(model):
        if is_complete(checkpoint):
            whole.append(checkpoint)
        else:
            _set_aside(checkpoint)
    while whole and _is_at_its_end(whole[-1]):
        _set_aside(whole.pop())
    return whole[-1] if whole else None


def remove_incomplete(model: Path) -> None:
    """Remove the checkpoints that cannot be resumed from, and the parts of files that were being written."""
    for checkpoint in [*all_checkpoints(model), *model.glob(f"{ASIDE}*")]:
        if not is_complete(checkpoint):
            shutil.rmtree(checkpoint, ignore_errors=True)


def _set_aside(checkpoint: Path) -> None:
    aside = checkpoint.with_name(ASIDE + checkpoint.name)
    if aside.exists():
        shutil.rmtree(aside)
    checkpoint.rename(aside)


def _is_at_its_end(checkpoint: Path) -> bool:
    """Zero steps is what a checkpoint of another run says (from=): its end is not this run's."""
    state = read_json(checkpoint / "trainer_state.json", lenient=True)
    return bool(0 < state.get("max_steps", 1) <= state.get("global_step", 0))
