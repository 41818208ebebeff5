"""A run that starts from another run's checkpoint. The start checkpoint is an input, and is copied to where Axolotl
looks for the run's own.

So a killed run resumes from its own newest checkpoint, and from the start checkpoint only while it has none of its own.
Standard library.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modal_app.store import checkpoints
from modal_app.store.step import write_atomically

CONFIG_KEY = "resume_from_checkpoint"
"""Axolotl's own key, by which a keyed config names the start checkpoint: `inputs/...`. Axolotl does not get it."""
STATE = "trainer_state.json"


def start_checkpoint_of(config: Mapping[str, Any], at: Path) -> Path | None:
    """The start checkpoint of a keyed config; `at` is the folder that has `inputs/`."""
    name = config.get(CONFIG_KEY)
    return at / name if isinstance(name, str) else None


def step_of(checkpoint: Path) -> int:
    """The optimizer step that it was saved at."""
    return int(json.loads((checkpoint / STATE).read_text(encoding="utf-8"))["global_step"])


def place(origin: Path, model: Path) -> Path:
    """Copy it to where a run's own checkpoints are, and return where it is; the marker comes last."""
    target = model / f"{checkpoints.PREFIX}{step_of(origin)}"
    shutil.copytree(origin, target, ignore=lambda _, __: {checkpoints.MARKER}, dirs_exist_ok=True)
    write_atomically(target / checkpoints.MARKER, (origin / checkpoints.MARKER).read_text(encoding="utf-8"))
    return target
