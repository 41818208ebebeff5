from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from modal_app.store import pins
from modal_app.store.content import FileState, file_sha256, files_below, folder_sha256
from modal_app.store.layout import Store
from modal_app.store.step import Step, StepKind


def model_in(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"0123456789")
    return folder


def pinned(tmp_path: Path) -> tuple[Path, Path]:
    """A user's model, and the store's link to it, with its note."""
    model = model_in(tmp_path / "model")
    states = {path.name: FileState.of(path).read(path) for path in files_below(model)}
    target = tmp_path / "inputs" / folder_sha256({name: one.sha256 for name, one in states.items()})[:16]
    target.parent.mkdir()
    target.symlink_to(model)
    pins.write_note(target, states)
    return model, target


def test_an_input_with_the_noted_states_is_not_read(tmp_path: Path) -> None:
    model, target = pinned(tmp_path)
    stamps = (model / "model.safetensors").stat()
    (model / "model.safetensors").write_bytes(b"9876543210")
    os.utime(model / "model.safetensors", ns=(stamps.st_atime_ns, stamps.st_mtime_ns))
    pins.check(target)


def change(weights: Path, how: str) -> None:
    """Give a file other content of the same size: in place, or by replacing it with another file."""
    written = weights if how == "edited" else weights.with_name("other")
    written.write_bytes(b"9876543210")
    written.replace(weights)


@pytest.mark.parametrize("how", ["edited", "replaced", "cut", "removed", "added"])
def test_a_model_with_another_content_is_refused_by_the_name_of_the_file(tmp_path: Path, how: str) -> None:
    model, target = pinned(tmp_path)
    weights, name = model / "model.safetensors", "model.safetensors"
    match how:
        case "edited" | "replaced":
            change(weights, how)
        case "cut":
            weights.write_bytes(b"01234")
        case "removed":
            weights.unlink()
        case "added":
            name = "tokenizer.json"
            (model / name).write_text("{}")
    with pytest.raises(pins.InputChanged, match=f"{model / name} changed after the run was planned. Restore"):
        pins.check(target)


def test_a_model_that_was_touched_or_copied_back_is_accepted_and_read_only_once(tmp_path: Path) -> None:
    model, target = pinned(tmp_path)
    (tmp_path / "copy").write_bytes((model / "model.safetensors").read_bytes())
    (tmp_path / "copy").replace(model / "model.safetensors")
    before = pins.note_of(target).read_text()
    pins.check(target)
    assert pins.note_of(target).read_text() != before
    assert json.loads(pins.note_of(target).read_text())["files"]["model.safetensors"]["inode"] == (
        (model / "model.safetensors").stat().st_ino
    )


@pytest.mark.parametrize("note", [None, "", "[]", '{"files": {"model.safetensors": {"size": 10}}}'])
def test_an_input_without_a_note_is_compared_with_its_name(tmp_path: Path, note: str | None) -> None:
    """An input as an earlier version has linked it."""
    model, target = pinned(tmp_path)
    pins.note_of(target).unlink() if note is None else pins.note_of(target).write_text(note)
    pins.check(target)
    assert set(json.loads(pins.note_of(target).read_text())["files"]) == {"config.json", "model.safetensors"}
    pins.note_of(target).unlink()
    (model / "model.safetensors").write_bytes(b"9876543210")
    with pytest.raises(pins.InputChanged, match=str(model)):
        pins.check(target)
    assert not pins.note_of(target).exists()


def test_a_copied_file_is_checked_like_a_folder(tmp_path: Path) -> None:
    (tmp_path / "rows").write_text("rows")
    target = tmp_path / f"{file_sha256(tmp_path / 'rows')[:16]}.jsonl"
    (tmp_path / "rows").rename(target)
    pins.check(target)
    assert pins.as_noted(target) == file_sha256(target)
    target.write_text("other rows")
    assert not pins.as_noted(target)
    with pytest.raises(pins.InputChanged, match="changed after the run was planned"):
        pins.check(target)


def test_a_model_that_is_gone_is_named(tmp_path: Path) -> None:
    model, target = pinned(tmp_path)
    model.rename(tmp_path / "elsewhere")
    with pytest.raises(pins.InputChanged, match=f"{model} does not exist any more"):
        pins.check(target)


def test_of_a_copy_on_a_volume_only_the_sizes_are_compared(tmp_path: Path) -> None:
    model, target = pinned(tmp_path)
    (model / "model.safetensors").write_bytes(b"9876543210")
    pins.check(target, sizes_only=True)
    (model / "model.safetensors").write_bytes(b"98765")
    with pytest.raises(pins.InputChanged):
        pins.check(target, sizes_only=True)
    pins.note_of(target).unlink()  # uploaded by an earlier version
    pins.check(target, sizes_only=True)


@pytest.mark.parametrize("how", ["edited", "replaced", "removed", "touched"])
def test_of_weights_that_are_mapped_only_an_edit_counts(tmp_path: Path, how: str) -> None:
    model, target = pinned(tmp_path)
    weights, name = model / "model.safetensors", f"inputs/{target.name}"
    match how:
        case "edited" | "replaced":
            change(weights, how)
        case "removed":
            (tmp_path / "model").rename(tmp_path / "elsewhere")
        case "touched":
            os.utime(weights, ns=(1, 1))
    step = Step(StepKind.TRAIN, "run", {"base_model": name}, "data")
    if how == "edited":
        with pytest.raises(pins.InputChanged, match=str(weights)):
            pins.check_unedited(step, Store(tmp_path))
    else:
        pins.check_unedited(step, Store(tmp_path))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (StepKind.PREPROCESS, ["inputs/model", "inputs/rows", "inputs/more.json", "inputs/own.jinja"]),
        (StepKind.TRAIN, ["inputs/model", "inputs/own.jinja"]),
    ],
)
def test_rows_are_read_when_they_are_prepared_and_models_whenever_they_are_loaded(
    kind: StepKind, expected: list[str]
) -> None:
    config: dict[str, Any] = {
        "base_model": "inputs/model",
        "tokenizer_config": "inputs/model",
        "resume_from_checkpoint": "inputs/checkpoint",
        "datasets": [
            {"path": "inputs/rows", "data_files": ["inputs/more.json"], "chat_template_jinja": "inputs/own.jinja"}
        ],
    }
    assert pins.inputs_of(Step(kind, "key", config, "data")) == expected
    reads_them_itself = Step(kind, "key", config | {"skip_prepare_dataset": True}, "data")
    assert {"inputs/rows", "inputs/more.json"} < set(pins.inputs_of(reads_them_itself))


def test_what_else_a_follow_up_step_reads_is_checked(tmp_path: Path) -> None:
    step = Step(StepKind.INFER, "key", {"base_model": "owner/model"}, "data", options={"prompts": "inputs/a.jsonl"})
    assert pins.inputs_of(step) == ["inputs/a.jsonl"]
