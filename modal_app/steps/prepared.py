"""A prepared dataset as an attempt reads it: a private folder of links to the shared rows."""

from __future__ import annotations

from pathlib import Path

from modal_app.process.attempt import relative_target
from modal_app.process.failures import StepFailed
from modal_app.store.layout import Attempt, Store
from modal_app.store.step import FailureReason, Step
from modal_app.store.verified import dataset_damage

PREPARED = "prepared"


def link_prepared(step: Step, store: Store, attempt: Attempt) -> Path:
    """Make `prepared/` in the attempt's folder; returns the dataset's manifest. Raises StepFailed if there is no
    dataset, or if it is damaged.

    A folder of its own, since Axolotl writes a lock next to the rows, which are shared and may be read-only.
    """
    manifest = store.manifest(step.data_key)
    if not manifest.exists():
        raise StepFailed(
            FailureReason.DATA,
            f"the prepared dataset {step.data_key} is not there ({manifest} is missing): preprocess it first",
        )
    if damage := dataset_damage(store, step.data_key):
        raise StepFailed(
            FailureReason.DATA,
            f"the prepared dataset {step.data_key} is damaged: {damage}. Run the sweep's command again, with "
            "stages=[preprocess] if its runs are finished: it prepares the dataset again",
        )
    links = attempt.path / PREPARED
    links.mkdir()
    for rows in sorted(path for path in store.prepared_dataset(step.data_key).iterdir() if path.is_dir()):
        (links / rows.name).symlink_to(relative_target(links, rows))
    return manifest
