"""A store on the local Modal's Volumes, and a machine's mirror of it: as after a sweep there, without any container."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import modal

from modal_app.store.layout import SUBMISSION, Store
from modal_app.store.step import StepKind, write_atomically
from runner.files.modal_files import ON_CACHE
from runner.types import Plan

NAMES = {"cache_volume": "axosweep-cache", "runs_volume": "axosweep-runs", "claims": "axosweep-claims"}
MIRRORED = (
    "run.json", "metrics.jsonl", "result.json", "config.yml", "manifest.json", "plan.json", "records.jsonl",
    "losses.npz",
)  # fmt: skip


def submit(there: Store, plan: Plan) -> None:
    """What a launch puts next to the plan."""
    steps = [
        {"kind": kind, "key": key, "data_key": one.run.data_key, "fetches": []}
        for one in plan.runs
        for kind, key in ((StepKind.PREPROCESS, one.run.data_key), (StepKind.TRAIN, one.run.key))
    ]
    write_atomically(there.sweeps / plan.sweep / SUBMISSION, json.dumps({"names": NAMES, "steps": steps}))


def upload(there: Store, client: modal.Client, marks: tuple[str, ...] = ()) -> None:
    """Upload every file of a folder in a store's layout to the two Volumes."""
    files = [path for path in there.root.rglob("*") if path.is_file() and path.name != "lock"]
    for name, on_cache in ((NAMES["cache_volume"], True), (NAMES["runs_volume"], False)):
        volume = modal.Volume.from_name(name, create_if_missing=True, version=2, client=client)
        with volume.batch_upload(force=True) as batch:
            for path in files:
                relative = path.relative_to(there.root)
                if (relative.parts[0] in ON_CACHE) is on_cache:
                    batch.put_file(path, f"/{relative.as_posix()}")
            if not on_cache:
                for mark in marks:
                    batch.put_file(io.BytesIO(b"{}"), f"/done/{mark}")


def mirror(there: Store, here: Path) -> Store:
    """Copy the small files of that store to where the verbs look for them: below the store `here`."""
    store = Store(here / "modal")
    for path in there.root.rglob("*"):
        if path.is_file() and path.name in (*MIRRORED, SUBMISSION):
            target = store.root / path.relative_to(there.root)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return store


def claimed(client: modal.Client, entries: Mapping[str, Any]) -> None:
    """Put entries of the claims."""
    modal.Dict.from_name(NAMES["claims"], create_if_missing=True, client=client).update(dict(entries))
