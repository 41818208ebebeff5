"""A prepared dataset as an attempt reads it: a private folder of links to the shared rows."""

from __future__ import annotations

from pathlib import Path

from modal_app.process.attempt import relative_target
from modal_app.process.failures import StepFailed
from modal_app.store.layout import Attempt, Store
from modal_app.store.step import FailureReason, Step

PREPARED = "prepared"


def link_prepared(step: Step, store: Store, attempt: Attempt) -> Path:
    """Make `prepared/` in the attempt's folder; returns the dataset's manifest. Raises StepFailed where there is none.

    A folder of its own, since Axolotl writes a lock beside the rows, which are shared and may be read-only.
    """
    manifest = store.manifest(step.data_key)
    if not manifest.exists():
        raise StepFailed(
            FailureReason.DATA,
            f"the prepared dataset {step.data_key} is not there ({manifest} is missing): preprocess it first",
        )
    links = attempt.path / PREPARED
    links.mkdir()
    for rows in sorted(path for path in store.prepared_dataset(step.data_key).iterdir() if path.is_dir()):
        (links / rows.name).symlink_to(relative_target(links, rows))
    return manifest
