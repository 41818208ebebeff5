"""Says which runs have finished under the keys that Python 3.13 had before keys named it.

Until version 0.3, a key named the trainer's lock and not its Python, although the lock holds other packages for another
Python. The keys of Python 3.12 are still those; the keys of 3.13 have moved once.
"""

from __future__ import annotations

from modal_app.cloud.settings import UNWRITTEN_PYTHON
from modal_app.store.step import StepKind
from runner.environment import trainer_environment
from runner.keys.identity import identify_run, split_by_gpu_type
from runner.launch.types import Launch


def moved_note(launch: Launch) -> str:
    """A note if pending runs have finished under an earlier key; otherwise empty."""
    if not launch.on_this_machine or trainer_environment.python_version() == UNWRITTEN_PYTHON:
        return ""
    lock = trainer_environment.lock_hash()
    pending = {one.run.key for one in launch.plan.pending}
    earlier = split_by_gpu_type([identify_run(one.experiment, one.inputs, trainer_lock=lock) for one in launch.runs])
    moved = {
        now.key
        for now, before in zip(launch.runs, earlier, strict=True)
        if now.key in pending and launch.store.folder(StepKind.TRAIN, before.key).done.exists()
    }
    if not moved:
        return ""
    return (
        f"{len(moved)} of these runs finished under an earlier key, which did not include the version of the "
        f"trainer's Python. This trainer has Python {trainer_environment.python_version()}, not {UNWRITTEN_PYTHON}, so "
        "they are trained again, once."
    )
