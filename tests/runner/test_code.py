"""A plan lists the Python that a config makes a trainer run, with the hash of what it would run."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from modal_app.store.layout import Store
from runner.keys.code import Code, find_code
from runner.launch.plan_inputs import code, lines
from runner.types import Input, InputKind
from tests.runner.builders import experiment, plan, run

COMMIT = "c" * 40
CONFIG = {
    "plugins": ["axolotl.integrations.liger.LigerPlugin", "mine.Plugin", "installed.Plugin"],
    "trl": {"reward_funcs": ["rewards.length", "owner/reward-model"]},
    "datasets": [{"path": "rows.jsonl", "type": "rows_of.load"}, {"path": "a.jsonl", "type": "chat_template.default"}],
    "base_model": "owner/model",
}


@pytest.fixture(autouse=True)
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "code"
    (folder / "mine").mkdir(parents=True)
    for name in ("mine/__init__.py", "mine/other.py", "rewards.py", "rows_of.py"):
        (folder / name).write_text(f"# {name}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", "code")
    return folder


def test_named_modules_are_listed_with_their_files_and_hashes(modules: Path) -> None:
    rows = [Input("datasets.0.path", "rows.jsonl", InputKind.FILE, "0" * 64)]
    (modules.parent / "rows.py").write_text("")
    found = {one.name: one for one in find_code(experiment(CONFIG), rows)}
    assert set(found) == {"mine.Plugin", "installed.Plugin", "rewards.length", "rows_of.load"}
    length = hashlib.sha256((modules / "rewards.py").read_bytes()).hexdigest()
    assert found["rewards.length"] == Code("trl.reward_funcs.0", "rewards.length", str(modules / "rewards.py"), length)
    assert found["mine.Plugin"].file == str(modules / "mine")
    assert found["installed.Plugin"].file is None
    (modules.parent / "installed.py").write_text("next to the config\n")
    assert {one.name: one for one in find_code(experiment(CONFIG), ())}["installed.Plugin"].file == str(
        modules.parent / "installed.py"
    )
    before = found["mine.Plugin"].sha256
    (modules / "mine" / "other.py").write_text("changed\n")
    assert {one.name: one for one in find_code(experiment(CONFIG), ())}["mine.Plugin"].sha256 != before


def test_a_trusted_models_own_code_is_listed_by_file_or_by_commit(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "modeling.py").write_text("x = 1\n")
    inputs = [
        Input("base_model", "owner/model", InputKind.HUB, COMMIT),
        Input("tokenizer_config", "model", InputKind.FOLDER, "0" * 64),
        Input("datasets.0.path", "owner/rows", InputKind.HUB, COMMIT),
    ]
    assert find_code(experiment({}), inputs) == []
    hub, local = find_code(experiment({"trust_remote_code": True}), inputs)
    assert (hub.name, hub.commit) == ("owner/model", COMMIT)
    assert (local.file, local.sha256) == ("model/modeling.py", hashlib.sha256(b"x = 1\n").hexdigest())


def test_a_plan_prints_it_once_for_all_runs_and_has_it_as_json(store: Store, modules: Path) -> None:
    both = plan([run({"plugins": ["mine.Plugin"], "learning_rate": rate}) for rate in (1e-3, 2e-3)], store)
    (line,) = [line for line in lines(both, store, []) if line.startswith("runs code")]
    (listed,) = code(both)
    assert line == f"runs code plugins.0=mine.Plugin: {modules / 'mine'} (sha256 {str(listed.sha256)[:16]})"
