"""A folder on the container's own disk for one attempt, since writing to a Volume would hold up training, and one for
temporary files. Standard library.

    draft/          model/ (checkpoints, the final weights, a merged model) or a prepared dataset, and the "done" file
    result.json     how the attempt has ended
    build/, datasets-cache/    temporary rows, linked to from the attempt's folder
    ../tmp/         temporary files of the worker's libraries

`copies` copies the first two to the Volume. Both folders are removed with their attempt, so the next attempt in the
same container does not find them.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from modal_app.store.durable import SCRATCH
from modal_app.store.step import Step

TEMPORARY = {
    "TMPDIR": "",
    "XDG_CACHE_HOME": "cache",
    "HF_HOME": "huggingface",
    "TRITON_HOME": "triton",
    "TRITON_CACHE_DIR": "triton/cache",
    "CUDA_CACHE_PATH": "cuda",
    "MPLCONFIGDIR": "matplotlib",
    "WANDB_CACHE_DIR": "wandb",
    "WANDB_CONFIG_DIR": "wandb-config",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "TORCH_EXTENSIONS_DIR": "torch-extensions",
}
"""Variables of a worker, and the folders in `tmp/` that they name."""


@contextlib.contextmanager
def scratch_of(step: Step, attempt: int, root: Path = SCRATCH) -> Iterator[Path]:
    """The folder of an attempt, new, while the block runs."""
    empty(root)
    place = root / f"{step.kind}-{step.key.replace('/', '-')}-{attempt}"
    for folder in (place, temporary(root)):
        folder.mkdir(parents=True)
    try:
        yield place
    finally:
        empty(root)


def empty(root: Path = SCRATCH) -> None:
    """Remove everything, also what a process wrote that outlived its attempt."""
    for place in root.glob("*"):
        shutil.rmtree(place, ignore_errors=True)


def temporary(root: Path) -> Path:
    """Under the same name for each attempt: a container makes one at a time."""
    return root / "tmp"


def variables(root: Path) -> dict[str, str]:
    """The variables of a worker's environment for temporary files."""
    return {name: str(temporary(root) / folder) for name, folder in TEMPORARY.items()}
