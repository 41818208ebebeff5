"""Which checkpoints may be resumed from. Axolotl takes the highest number, unchecked. Here a checkpoint counts only
with a marker, which lists the size and sha256 of each of its files, and is written when they are on the disk."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from modal_app.store.content import file_sha256, flush_folders, flushed_sha256
from modal_app.store.read_json import read_json
from modal_app.store.step import write_atomically

MARKER = "complete.json"
PREFIX = "checkpoint-"
ASIDE = "broken-"
AT_ONCE = 8
"""Files that are hashed at the same time: those of a large model's checkpoint are large, too."""
INTERRUPTED = "its saving was interrupted"
AT_ITS_END = "it is at its last step, and one step too many would follow"


def can_resume(config: Mapping[str, Any]) -> bool:
    """Whether a run's checkpoints have all that it needs to reach the losses of an undisturbed run.

    They lack the optimizer's state (save_only_model), or what ReLoRA has merged into quantized weights.
    """
    quantized = config.get("load_in_4bit") or config.get("load_in_8bit")
    return not (config.get("save_only_model") or (config.get("relora") and quantized))


def mark_complete(checkpoint: Path, unlogged: Mapping[str, float], *, ends: bool = False) -> dict[str, str]:
    """Declare a checkpoint complete, once its files are on the disk; returns their sha256.

    `unlogged`: the loss since the last log line, for the resumed run to go on with. `ends`: whether the run that saves
    it ends there, though it may have steps left.
    """
    files = {
        path.relative_to(checkpoint).as_posix(): path
        for path in sorted(checkpoint.rglob("*"))
        if path.is_file() and path.name != MARKER
    }
    sizes = {name: path.stat().st_size for name, path in files.items()}
    sums = _by_name(flushed_sha256, files)
    flush_folders(checkpoint)
    marker = {"files": sizes, "sha256": sums, "unlogged": dict(unlogged), "ends": ends}
    write_atomically(checkpoint / MARKER, json.dumps(marker))
    return sums


def is_complete(checkpoint: Path) -> bool:
    """Checks only the sizes of its files; `damage_of` reads them."""
    return not _wrong_size(checkpoint)


def damage_of(checkpoint: Path, sums: Mapping[str, str] | None = None) -> str:
    """Why a checkpoint must not be resumed from; empty if it may be.

    One that an earlier version has saved has sizes alone to be compared. `sums`: its `sha256s`, if they are known.
    """
    if wrong := _wrong_size(checkpoint):
        return wrong
    listed = read_json(checkpoint / MARKER, lenient=True).get("sha256", {})
    if not listed:
        return ""
    now = sha256s(checkpoint) if sums is None else sums
    changed = [name for name, sha256 in listed.items() if now.get(name) != sha256]
    return f"the content of {changed[0]} is not the one that was written" if changed else ""


def sha256s(checkpoint: Path) -> dict[str, str]:
    """The sha256 of each file that the marker lists, as it is now. Raises FileNotFoundError if one is missing."""
    names = read_json(checkpoint / MARKER, lenient=True).get("files", {})
    return _by_name(file_sha256, {name: checkpoint / name for name in names})


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
    """The step of the newest complete checkpoint; 0 if there is none."""
    complete = [path for path in all_checkpoints(model) if is_complete(path)]
    return step_number(complete[-1]) if complete else 0


def newest_to_resume(model: Path, without: Collection[str] = ()) -> int:
    """The same, but only of checkpoints that a run can go on from, as far as `set_aside_unusable` knows without reading
    them. `without`: names of others that it cannot go on from."""
    usable = [one for one in all_checkpoints(model) if one.name not in without and is_complete(one)]
    return max((step_number(one) for one in usable if not _is_at_its_end(one)), default=0)


def remove_all(model: Path) -> None:
    """Remove all checkpoints, for a run that starts over."""
    for checkpoint in all_checkpoints(model):
        if checkpoint.is_symlink():  # of a draft: into another one
            checkpoint.unlink()
        else:
            shutil.rmtree(checkpoint)


def set_aside_unusable(model: Path, report: Callable[[str], None] = lambda line: None) -> Path | None:
    """Rename what must not be resumed from, so that Axolotl does not see it; return the checkpoint that it will take.

    Besides broken ones, that is a newest checkpoint which is already at its last step: resumed, it would train one
    step too many. Only the one that will be taken is read. `report` is called with a line for each that is damaged.
    """
    taken: Path | None = None
    for checkpoint in reversed(all_checkpoints(model)):
        if taken is not None:
            why = _wrong_size(checkpoint)
        else:
            why = AT_ITS_END if is_complete(checkpoint) and _is_at_its_end(checkpoint) else damage_of(checkpoint)
        if why:
            _set_aside(checkpoint)
        elif taken is None:
            taken = checkpoint
        if why not in ("", INTERRUPTED, AT_ITS_END):
            report(f"{checkpoint.name} is damaged and not used: {why}")
    return taken


def _wrong_size(checkpoint: Path) -> str:
    files = read_json(checkpoint / MARKER, lenient=True).get("files")
    if not files:
        return INTERRUPTED
    for name, size in files.items():
        path = checkpoint / name
        if not path.is_file():
            return f"{name} is missing"
        if (now := path.stat().st_size) != size:
            return f"{name} has {now:,} bytes, not {size:,}"
    return ""


def _by_name(sha256: Callable[[Path], str], files: Mapping[str, Path]) -> dict[str, str]:
    with ThreadPoolExecutor(AT_ONCE) as pool:  # hashing lets other threads run
        return dict(zip(files, pool.map(sha256, files.values()), strict=True))


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
    """A checkpoint of another run says zero steps (from=): its end is not this run's."""
    if read_json(checkpoint / MARKER, lenient=True).get("ends"):  # early
        return True
    state = read_json(checkpoint / "trainer_state.json", lenient=True)
    return bool(0 < state.get("max_steps", 1) <= state.get("global_step", 0))
