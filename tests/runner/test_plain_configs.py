"""`plan --write`: each run as a file that plain Axolotl trains, written completely or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from modal_app.store.layout import Store
from runner.errors import SweepError
from runner.launch.plain_configs import write_configs
from runner.types import DataChoice, Gpu, Input, InputKind, TrackingChoice
from tests.runner.builders import plan, run

COMMIT = "c" * 40
HASH = "a" * 64


def _config(path: Path) -> dict[str, object]:
    content: dict[str, object] = yaml.safe_load(path.read_text())
    return content


def test_a_file_names_its_inputs_so_that_they_are_found_from_anywhere(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = {
        "base_model": "owner/model",
        "datasets": [{"path": "rows.jsonl", "type": "alpaca"}, {"path": "owner/rows", "type": "alpaca"}],
        "lora_model_dir": "owner/adapter@v1",
    }
    one = run(
        asked,
        inputs=[
            Input("base_model", "owner/model", InputKind.HUB, COMMIT),
            Input("datasets.0.path", "rows.jsonl", InputKind.FILE, HASH),
            Input("datasets.1.path", "owner/rows", InputKind.HUB, COMMIT),
            Input("lora_model_dir", "owner/adapter@v1", InputKind.HUB, COMMIT),
        ],
    )
    (path,) = write_configs(plan([one], store), "files")
    assert path == tmp_path / "files" / f"{one.key}.yml"
    config = _config(path)
    assert config["revision_of_model"] == COMMIT
    assert config["datasets"] == [
        {"path": str(tmp_path / "rows.jsonl"), "type": "alpaca"},
        {"path": "owner/rows", "type": "alpaca", "revision": COMMIT},
    ]
    assert config["lora_model_dir"] == "owner/adapter"
    assert f"lora_model_dir: owner/adapter, here at commit {COMMIT}" in path.read_text()
    assert config["output_dir"] == str(tmp_path / "files" / "outputs" / one.key)
    assert config["dataset_prepared_path"] == str(tmp_path / "files" / "prepared" / one.data_key)


def test_a_file_says_where_its_python_modules_are(store: Store, tmp_path: Path) -> None:
    files = (("mine.py", "/a/mine.py"), ("deep/down.py", "/b/deep/down.py"))
    code = Input("user_code", "mine.py, deep", InputKind.CODE, HASH, files=files)
    (path,) = write_configs(plan([run({"plugins": ["mine.Plugin"]}, inputs=[code])], store), str(tmp_path))
    assert "# With its Python modules: PYTHONPATH=/a:/b\n" in path.read_text()
    assert "user_code" not in _config(path)


@pytest.mark.parametrize(
    ("gpu", "command"),
    [
        (Gpu("cpu", 1), "CUDA_VISIBLE_DEVICES= axolotl train {key}.yml --launcher python"),
        (Gpu("h100", 1), "axolotl train {key}.yml   (on a h100)"),
        (Gpu("h100", 8), "axolotl train {key}.yml --launcher torchrun -- --nproc_per_node=8   (8 x h100)"),
    ],
)
def test_a_file_says_how_it_is_run(store: Store, tmp_path: Path, gpu: Gpu, command: str) -> None:
    one = run({"learning_rate": 1e-3}, gpu=gpu)
    (path,) = write_configs(plan([one], store), str(tmp_path))
    assert f"# {command.format(key=one.key)}\n" in path.read_text()


def test_rows_with_a_seed_of_their_own_have_a_file_that_comes_first(store: Store, tmp_path: Path) -> None:
    runs = [run({"seed": seed, "learning_rate": 1.0}, data=DataChoice(seed=7)) for seed in (1, 2)]
    prepare, *files = sorted(
        write_configs(plan(runs, store), str(tmp_path)), key=lambda path: "prepare" not in path.name
    )
    assert _config(prepare)["seed"] == 7
    assert [_config(path)["seed"] for path in files] == [_config(path)["seed"] for path in files]
    assert {_config(path)["dataset_prepared_path"] for path in (prepare, *files)} == {
        str(tmp_path / "prepared" / runs[0].data_key)
    }
    assert all(f"axolotl preprocess {prepare.name}" in path.read_text() for path in files)


@pytest.mark.parametrize(
    ("tracking", "keys"),
    [
        (TrackingChoice("disabled", "p"), {"use_wandb": False}),
        (TrackingChoice("offline", "p"), {"use_wandb": True, "wandb_mode": "offline", "wandb_project": "p"}),
        (TrackingChoice("online", "p", "team"), {"wandb_mode": "online", "wandb_entity": "team"}),
    ],
)
def test_a_file_is_tracked_as_its_run_would_be(
    store: Store, tmp_path: Path, tracking: TrackingChoice, keys: dict[str, object]
) -> None:
    (path,) = write_configs(plan([run({"learning_rate": 1e-3}, tracking=tracking)], store), str(tmp_path))
    assert keys.items() <= _config(path).items()


@pytest.mark.parametrize("other", [b"mine", b"\xff\xfe of another program", None])
def test_what_is_there_is_not_overwritten(store: Store, tmp_path: Path, other: bytes | None) -> None:
    runs = [run({"learning_rate": rate}) for rate in (1e-3, 2e-3)]
    written = write_configs(plan(runs, store), str(tmp_path))
    assert write_configs(plan(runs, store), str(tmp_path)) == written, "the same again is no loss"
    if other is None:
        written[1].unlink()
        written[1].mkdir()
    else:
        written[1].write_bytes(other)
    written[0].unlink()
    with pytest.raises(SweepError, match=f"{written[1].name}: exists with different content"):
        write_configs(plan(runs, store), str(tmp_path))
    assert written[1].is_dir() if other is None else written[1].read_bytes() == other
    assert not written[0].exists(), "nothing is written when not all can be"


def test_text_with_line_breaks_stays_in_its_value(store: Store, tmp_path: Path) -> None:
    runs = [run({"chat_template_jinja": text, "learning_rate": "2e-5"}) for text in ("a\nb: [", "c\nd")]
    paths = write_configs(plan(runs, store), str(tmp_path))
    assert [_config(path)["chat_template_jinja"] for path in paths] == ["a\nb: [", "c\nd"]
    assert _config(paths[0])["learning_rate"] == "2e-5"
