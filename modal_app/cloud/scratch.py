"""A folder on the container's own disk for one attempt, since writing to a Volume would hold up training. Standard
library.

    draft/          model/ (checkpoints, the final weights, a merged model) or a prepared dataset, and the "done" file
    result.json     how the attempt has ended
    build/, datasets-cache/    temporary rows, linked to from the attempt's folder
    tmp/            what the worker's libraries put somewhere by themselves

`copies` copies the first two to the Volume. The folder is removed with its attempt, so the next one in the same
container finds nothing of it.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from modal_app.store.layout import SCRATCH
from modal_app.store.step import Step

TEMPORARY = {
    "TMPDIR": "",
    "XDG_CACHE_HOME": "cache",
    "HF_HOME": "huggingface",
    "TRITON_CACHE_DIR": "triton",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "TORCH_EXTENSIONS_DIR": "torch-extensions",
}
"""Variables of a worker, and the folders in `tmp/` that they name."""


@contextlib.contextmanager
def scratch_of(step: Step, attempt: int, root: Path = SCRATCH) -> Iterator[Path]:
    """The folder of an attempt, new, while the block runs."""
    place = root / f"{step.kind}-{step.key.replace('/', '-')}-{attempt}"
    shutil.rmtree(place, ignore_errors=True)
    temporary(place).mkdir(parents=True)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def temporary(place: Path) -> Path:
    return place / "tmp"


def variables(place: Path) -> dict[str, str]:
    """What a worker's environment says of temporary files."""
    return {name: str(temporary(place) / folder) for name, folder in TEMPORARY.items()}
