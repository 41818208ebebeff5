"""How a plan, its jobs on Modal, its written configs and preflight treat runs that read their own data."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from modal_app.store.layout import Store
from runner.executors.modal_submission import before, mirrored_steps
from runner.launch.plain_configs import write_configs
from runner.preflight.own_data import own_data_findings
from runner.show.tables import show_plan
from runner.types import DataChoice, Input, InputKind
from tests.runner.builders import experiment, plan, run
from tests.runner.executors.test_modal import COMMIT, waiting, work

MODEL = Input("base_model", "owner/model", InputKind.HUB, COMMIT)
TEXT = Input("pretraining_dataset.0.path", "owner/text", InputKind.HUB, "c" * 40)
STREAM: dict[str, Any] = {
    "base_model": "owner/model",
    "pretraining_dataset": [{"path": "owner/text", "skip": 3}],
    "max_steps": 9,
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "out")


def stream(**more: Any) -> Any:
    return run({**STREAM, **more}, inputs=[MODEL, TEXT])


def test_such_a_run_has_a_data_key_and_no_dataset(store: Store) -> None:
    made = plan([stream(), stream(learning_rate=1), run({"base_model": "inputs/abc"})], store)
    first, second, prepared = made.runs
    assert first.run.data_key == second.run.data_key
    assert [dataset.runs for dataset in made.datasets] == [(prepared.run.key,)]
    other = run(STREAM, inputs=[MODEL, Input(TEXT.at, TEXT.text, TEXT.kind, "d" * 40)])
    assert other.data_key != first.run.data_key, "the commit is part of it"


def test_a_plan_says_that_nothing_is_shared_and_why(store: Store) -> None:
    console = Console(width=200, record=True, file=io.StringIO())
    show_plan(plan([stream(), stream(learning_rate=1), run({"skip_prepare_dataset": True})], store), console)
    text = console.export_text()
    assert "2 runs read their own data, so nothing is prepared or shared (pretraining_dataset: " in text
    assert "1 run reads its own data, so nothing is prepared or shared (skip_prepare_dataset: " in text
    assert "3 runs, no dataset to prepare" in text


def test_on_modal_it_waits_for_its_model_only(store: Store) -> None:
    made = plan([stream()], store)
    (planned,) = made.runs
    called = work(made, set())
    assert [one.name for one in called.first] == [f"fetch/owner/model@{COMMIT}"]
    assert waiting(called, called.first[0].name) == [f"train/{planned.run.key}"]
    (step,) = mirrored_steps(made)
    assert before(step, [step]) == (f"fetch/owner/model@{COMMIT}",)
    assert [one.name for one in work(made, {f"fetch-owner-model@{COMMIT}"}).first] == [f"train/{planned.run.key}"]


def test_a_written_config_keeps_what_it_skips_and_names_the_commit(store: Store, tmp_path: Path) -> None:
    (file,) = write_configs(plan([stream()], store), str(tmp_path / "plain"))
    assert yaml.safe_load(file.read_text())["pretraining_dataset"] == STREAM["pretraining_dataset"]
    assert f"# pretraining_dataset.0.path: owner/text, here at commit {'c' * 40}" in file.read_text()
    assert "axolotl preprocess" not in file.read_text()


def test_settings_of_preparing_are_refused() -> None:
    (finding,) = own_data_findings(experiment(STREAM, data=DataChoice(seed=1)))
    assert finding.text.startswith("data.seed=1: it is the seed of preparing a dataset")
    assert list(own_data_findings(experiment({"datasets": []}, data=DataChoice(seed=1)))) == []


def test_held_out_rows_that_axolotl_would_not_read_are_reported() -> None:
    unread = {"streaming": True, "datasets": [], "test_datasets": [{"path": "owner/rows"}], "max_steps": 9}
    (finding,) = own_data_findings(experiment(unread))
    assert (finding.key, finding.severity) == ("test_datasets", "warning")
    assert not list(own_data_findings(experiment({**unread, "sample_packing": True})))
