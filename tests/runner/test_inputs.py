from pathlib import Path
from typing import Any

import pytest

from modal_app.store.content import file_sha256
from runner.errors import SweepError
from runner.keys.content import ContentHashes
from runner.keys.inputs import (
    find_inputs,
    how_to_pin,
    identify_input,
    pinned,
    require_possible_paths,
    staged_name,
)
from runner.types import Input, InputKind


def kinds(config: dict[str, Any]) -> dict[str, InputKind]:
    return {found.at: found.kind for found in find_inputs(config)}


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "x"}\n')
    return path


def test_everything_that_a_config_reads_is_found(tmp_path: Path, rows: Path) -> None:
    template = tmp_path / "chat.jinja"
    template.write_text("{{ messages }}")
    config = {
        "base_model": str(tmp_path),
        "deepspeed": str(rows),
        "chat_template_jinja": str(template),
        "datasets": [{"path": "owner/rows", "data_files": "part.jsonl"}, {"path": "json", "data_files": [str(rows)]}],
        "test_datasets": [{"path": str(rows)}],
        "learning_rate": 1e-3,
    }
    assert kinds(config) == {
        "base_model": InputKind.FOLDER,
        "deepspeed": InputKind.FILE,
        "chat_template_jinja": InputKind.FILE,
        "datasets.0.path": InputKind.HUB,
        "datasets.1.data_files.0": InputKind.FILE,
        "test_datasets.0.path": InputKind.FILE,
    }


def test_a_template_file_of_one_dataset_is_an_input_whatever_its_name_ends_with(tmp_path: Path, rows: Path) -> None:
    """If only its path counted, an edited template would train under the old key."""
    template = tmp_path / "template.txt"
    template.write_text("{{ messages }}")
    config = {"datasets": [{"path": str(rows), "chat_template_jinja": str(template)}]}
    assert kinds(config)["datasets.0.chat_template_jinja"] is InputKind.FILE
    with pytest.raises(SweepError, match="no such file"):
        kinds({"datasets": [{"path": str(rows), "chat_template_jinja": "missing.jinja"}]})


def test_a_template_and_a_deepspeed_config_written_in_place_are_not_inputs() -> None:
    assert kinds({"chat_template_jinja": "{{ messages }}", "deepspeed": {"zero_optimization": {}}}) == {}


@pytest.mark.parametrize(
    "config",
    [
        {"base_model": "./missing"},
        {"base_model": "~/missing"},
        {"datasets": [{"path": "data/missing.jsonl"}]},
        {"datasets": [{"path": "json", "data_files": "missing"}]},
        {"datasets": [{"path": "json", "data_files": ["missing"]}]},
        {"test_datasets": [{"path": "missing.parquet"}]},
        {"deepspeed": "zero2"},
        {"chat_template_jinja": "missing.jinja"},
    ],
)
def test_a_missing_local_file_is_refused_by_name(config: dict[str, Any]) -> None:
    with pytest.raises(SweepError, match=r"missing|zero2.*there is no such file or folder"):
        find_inputs(config)


def test_a_misspelt_file_is_refused_with_the_nearest_one(tmp_path: Path) -> None:
    for name in ("chat.jsonl", "unlike-it.log"):
        (tmp_path / name).touch()
    with pytest.raises(SweepError, match=rf"Did you mean {tmp_path}/chat\.jsonl\?"):
        find_inputs({"datasets": [{"path": f"{tmp_path}/chats.jsonl"}]})


@pytest.mark.parametrize("text", ["s3://bucket/rows", "https://example.org/rows", "a/b/c", "owner/name with space"])
def test_an_address_that_cannot_be_pinned_is_refused(text: str) -> None:
    with pytest.raises(SweepError, match="cannot be pinned"):
        find_inputs({"datasets": [{"path": text}]})


def test_an_address_is_not_called_a_missing_file() -> None:
    with pytest.raises(SweepError, match="cannot be pinned"):
        find_inputs({"datasets": [{"path": "json", "data_files": ["https://example.org/rows.jsonl"]}]})


def test_an_empty_text_is_not_the_current_folder() -> None:
    (found,) = find_inputs({"base_model": "owner/model", "lora_model_dir": "", "deepspeed": ""})
    assert found.at == "base_model"


def test_a_dataset_that_is_not_a_mapping_is_refused_with_the_form_to_write() -> None:
    with pytest.raises(SweepError, match=r"datasets\.0=owner/rows: expected a mapping"):
        find_inputs({"datasets": ["owner/rows"]})


def test_a_dataset_in_the_place_of_the_list_is_refused_with_the_form_to_write() -> None:
    with pytest.raises(SweepError, match=r"datasets=owner/rows: expected a list: datasets=\[\{path"):
        find_inputs({"datasets": "owner/rows"})


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"base_model": "~no_such_user/llama"}, "base_model=~no_such_user/llama: there is no folder ~no_such_user"),
        ({"datasets": [{"path": "~no_such_user/a.jsonl"}]}, r"datasets\.0\.path=~no_such_user"),
        (
            {"deepspeed": '{"zero_optimization": {' + " " * 300},
            r"deepspeed=\{\"zero_.* \(323 characters\): expected a path",
        ),
    ],
)
def test_text_that_can_be_no_path_is_refused(config: dict[str, Any], told: str) -> None:
    with pytest.raises(SweepError, match=told):
        require_possible_paths(config)


def test_two_hub_models_are_refused_because_one_revision_pins_both() -> None:
    config = {"base_model": "owner/model", "tokenizer_config": "owner/tokenizer"}
    with pytest.raises(SweepError, match="owner/tokenizer: this is not the hub repository of base_model=owner/model"):
        find_inputs(config)
    assert len(find_inputs(config | {"tokenizer_config": "owner/model"})) == 2


def test_an_adapter_of_the_hub_has_a_commit_of_its_own_in_its_name() -> None:
    """Axolotl passes no revision to PEFT, which would read the newest, whatever `revision_of_model` says."""
    commit, own = "c" * 40, "e" * 40
    config = {"base_model": "owner/model", "revision_of_model": commit, "lora_model_dir": f"owner/adapter@{own}"}
    model, adapter = (identify_input(one, config, ContentHashes(Path("unused"))) for one in find_inputs(config))
    assert (model.identity, adapter.identity) == (commit, own)
    assert pinned(adapter, own) == ("lora_model_dir", f"owner/adapter@{own}")
    assert how_to_pin(adapter) == "lora_model_dir=owner/adapter@<40-digit commit>"
    with pytest.raises(SweepError, match="cannot be pinned"):
        find_inputs({"base_model": "owner/model@main"})


def test_a_hub_tokenizer_with_a_local_model_is_fine(tmp_path: Path) -> None:
    assert len(find_inputs({"base_model": str(tmp_path), "tokenizer_config": "owner/tokenizer"})) == 2


def test_a_local_file_is_identified_by_its_bytes_and_stored_under_their_hash(tmp_path: Path, rows: Path) -> None:
    (found,) = find_inputs({"datasets": [{"path": str(rows)}]})
    identity = identify_input(found, {}, ContentHashes(tmp_path / "hashes.json")).identity
    assert identity == file_sha256(rows)
    assert staged_name(Input(found.at, found.text, found.kind, identity)) == f"inputs/{identity[:16]}.jsonl"


@pytest.mark.parametrize(
    ("name", "kind", "kept"),
    [
        ("rows.jsonl.gz", InputKind.FILE, ".jsonl.gz"),
        ("v1.2.jsonl", InputKind.FILE, ".jsonl"),
        ("rows", InputKind.FILE, ""),
        ("model-v1.5", InputKind.FOLDER, ""),
    ],
)
def test_a_stored_input_keeps_the_extension_that_chooses_its_reader(name: str, kind: InputKind, kept: str) -> None:
    found = Input("datasets.0.path", name, kind, "0123456789abcdef" * 4)
    assert staged_name(found) == f"inputs/0123456789abcdef{kept}"


def test_the_way_to_pin_is_an_override_that_exists() -> None:
    assert how_to_pin(Input("base_model", "o/m", InputKind.HUB, None)) == "revision_of_model=<40-digit commit>"
    assert how_to_pin(Input("datasets.1.path", "o/d", InputKind.HUB, None)) == "datasets.1.revision=<40-digit commit>"


@pytest.mark.parametrize("revision", ["d" * 40, None])
def test_a_requested_revision_is_the_one_resolved(
    revision: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    config = {
        "base_model": "owner/asked",
        "revision_of_model": revision,
        "datasets": [{"path": "owner/asked", "revision": revision}],
    }
    hashes = ContentHashes(tmp_path / "hashes.json")
    assert [identify_input(found, config, hashes).identity for found in find_inputs(config)] == [revision, revision]
