from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from modal_app.store import verified
from modal_app.store.layout import Store
from modal_app.store.manifest import listed_files
from modal_app.store.state import Phase, observe
from modal_app.store.step import StepKind

ROWS = b"0123456789"
DONE = {"attempt": 1, "started_at": 1.0, "finished_at": 2.0}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with a prepared dataset `data`."""
    store = Store(tmp_path / "out")
    folder = store.prepared_dataset("data")
    (folder / "hash").mkdir(parents=True)
    (folder / "hash" / "data.arrow").write_bytes(ROWS)
    store.manifest("data").write_text(json.dumps({**DONE, "files": listed_files(folder)}))
    return store


def arrow(store: Store) -> Path:
    return store.prepared_dataset("data") / "hash" / "data.arrow"


def rewrite_with_old_stamps(path: Path) -> None:
    stamps = path.stat()
    path.write_bytes(b"9876543210")
    os.utime(path, ns=(stamps.st_atime_ns, stamps.st_mtime_ns))


def test_a_dataset_is_complete_as_written_and_is_read_once(store: Store) -> None:
    assert verified.dataset_damage(store, "data") == ""
    rewrite_with_old_stamps(arrow(store))
    assert verified.dataset_damage(store, "data") == "", "the same file state is not read twice"


def test_what_has_just_been_hashed_is_not_read_again(store: Store) -> None:
    verified.note_verified(store, "data", json.loads(store.manifest("data").read_text())["files"])
    rewrite_with_old_stamps(arrow(store))
    assert verified.dataset_damage(store, "data") == ""


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"01234", "hash/data.arrow has 5 bytes, not 10"),
        (b"0123456780", "the content of hash/data.arrow is not the one that was written"),
        (None, "hash/data.arrow is missing"),
    ],
)
@pytest.mark.parametrize("before", [False, True], ids=["never verified", "verified before"])
def test_damaged_rows_are_named(store: Store, content: bytes | None, says: str, before: bool) -> None:
    if before:
        assert verified.dataset_damage(store, "data") == ""
    arrow(store).unlink() if content is None else arrow(store).write_bytes(content)
    for _ in range(2):
        assert verified.dataset_damage(store, "data") == says


def test_in_a_container_only_sizes_are_compared(store: Store, tmp_path: Path) -> None:
    arrow(store).write_bytes(b"9876543210")
    store.inputs.symlink_to(tmp_path)
    assert verified.dataset_damage(store, "data") == ""
    arrow(store).write_bytes(b"9")
    assert verified.dataset_damage(store, "data") == "hash/data.arrow has 1 bytes, not 10"


@pytest.mark.parametrize("text", ["", "[]", "{}", "{"])
def test_a_manifest_that_cannot_be_read_is_damage_and_not_done(store: Store, text: str) -> None:
    store.manifest("data").write_text(text)
    assert verified.dataset_damage(store, "data") == "its manifest.json is empty or damaged"
    assert observe(store, StepKind.PREPROCESS, "data").phase is Phase.ABSENT
    assert verified.withdraw_damaged(store, "data")
    assert not store.manifest("data").exists()


def test_only_a_damaged_dataset_is_withdrawn(store: Store) -> None:
    assert verified.withdraw_damaged(store, "data") == ""
    assert verified.withdraw_damaged(store, "none") == ""
    assert store.manifest("data").exists()


def test_a_dataset_of_a_version_that_listed_no_files_is_accepted(store: Store) -> None:
    store.manifest("data").write_text(json.dumps(DONE))
    arrow(store).unlink()
    assert verified.dataset_damage(store, "data") == ""


def test_a_model_is_compared_with_its_manifest(store: Store) -> None:
    folder = store.folder(StepKind.MERGE, "run/own")
    folder.model.mkdir(parents=True)
    (folder.model / "model.safetensors").write_bytes(ROWS)
    folder.manifest.write_text(json.dumps({"files": listed_files(folder.model)}))
    (folder.model / "checkpoint-10").mkdir()
    assert verified.model_damage(store, folder.model) == ""
    (folder.model / "model.safetensors").write_bytes(b"9876543210")
    assert verified.model_damage(store, folder.model) == (
        "the content of model.safetensors is not the one that was written"
    )
