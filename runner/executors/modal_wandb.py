"""Fetches the offline W&B files of runs on Modal from their Volume into the mirror; `axosweep sync` uploads them."""

from __future__ import annotations

from collections.abc import Collection

import modal
from modal.types import FileEntryType

from modal_app.store.layout import Store
from modal_app.store.step import StepKind
from runner.executors.modal_copies import listed
from runner.executors.modal_errors import explained
from runner.executors.modal_submission import read_submission, submitted_as

OFFLINE = "/wandb/offline-run-"


def fetch_wandb(store: Store, sweep: str, keys: Collection[str]) -> None:
    """Fetch every offline W&B run of these runs. A file that is here in its full size is not fetched again."""
    with explained():
        for key in keys:
            names, _ = read_submission(store, submitted_as(store, key, sweep))
            volume = modal.Volume.from_name(names.runs_volume)
            folder = store.folder(StepKind.TRAIN, key).path.relative_to(store.root)
            for entry in listed(volume, f"{folder.as_posix()}/wandb", recursive=True):
                target = store.root / entry.path
                if entry.type is not FileEntryType.FILE or OFFLINE not in f"/{entry.path}":
                    continue
                if not (target.exists() and target.stat().st_size == entry.size):
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with target.open("wb") as file:
                        file.writelines(volume.read_file(entry.path))
