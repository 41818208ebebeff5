import json
import math
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from modal_app.store.layout import Store
from modal_app.store.step import StepKind
from runner.cli import main
from runner.command import VERBS
from runner.compare.best import best_of, best_run, runnable_config, winner
from runner.compare.ranking import Metric, compare_sweep
from runner.errors import SweepError
from runner.store.ledger import Ledger
from runner.types import DataChoice, Gpu, Run
from tests.runner.builders import finish_run, open_sweep, run

LOSS = Metric()


def swept(store: Store, losses: dict[float, float], **rest: Any) -> tuple[str, list[Run]]:
    runs = [run({"learning_rate": rate, "num_epochs": 2, "adapter": "lora"}, **rest) for rate in losses]
    for one, loss in zip(runs, losses.values(), strict=True):
        finish_run(store, one, {0: 5.0, 9: loss})
    return open_sweep(store, runs, "rates").sweep, runs


def said(store: Store, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["best", "--store", str(store.root), *words]) == 0
    return capsys.readouterr().out


def test_the_winner_is_named_with_its_numbers_and_its_files(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    _, runs = swept(store, {1e-4: 2.0, 2e-4: 1.5})
    lines = said(store, capsys).splitlines()
    assert lines[0] == f"Best: {runs[1].key}  learning_rate=0.0002"
    assert lines[1] == "eval loss: 1.5000 at step 9, from 5.0000"
    assert f"Its adapter: {store.runs / runs[1].key}/model" in lines


def test_as_json_it_is_the_same(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    _, runs = swept(store, {1e-4: 2.0, 2e-4: 1.5})
    read = json.loads(said(store, capsys, "--json"))
    assert (read["run"]["key"], read["run"]["final"], read["kind"]) == (runs[1].key, 1.5, "adapter")
    assert read["config"]["learning_rate"] == 2e-4


def test_every_command_that_it_names_exists(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    swept(store, {1e-4: 2.0})
    for one in json.loads(said(store, capsys, "--json"))["next"]:
        program, verb, *_ = shlex.split(one["command"])
        assert program == "axosweep"
        assert verb in VERBS or "=" in verb, one


def test_longer_is_twice_what_ends_the_run_where_it_ran(store: Store) -> None:
    runs = [run({"learning_rate": 1, "num_epochs": 3}, gpu=Gpu("h100", 2), data=DataChoice(seed=7))]
    runs.append(run({"learning_rate": 2, "num_epochs": 3, "max_steps": 50}))
    for one, loss in zip(runs, (1.0, 2.0), strict=True):
        finish_run(store, one, {9: loss})
    rows = compare_sweep(store, open_sweep(store, runs).sweep)
    commands = {row.key: [one.command for one in best_of(row, LOSS, None).next] for row in rows}
    assert "axosweep base=best.yml gpu=h100 gpu.count=2 data.seed=7 num_epochs=6" in commands[runs[0].key]
    assert "axosweep base=best.yml max_steps=100" in commands[runs[1].key]


def test_its_config_is_written_for_axolotl_with_its_inputs_where_the_store_keeps_them(
    store: Store, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    _, (one,) = swept(store, {1e-4: 2.0})
    folder = store.folder(StepKind.TRAIN, one.key)
    keyed = {"learning_rate": 1e-4, "base_model": "inputs/model", "datasets": [{"path": "inputs/gone.jsonl"}]}
    folder.config.write_text(yaml.safe_dump(keyed))
    inputs = [{"at": "base_model", "text": "/m"}, {"at": "datasets.0.path", "text": "/rows.jsonl"}]
    folder.identity.write_text(json.dumps(json.loads(folder.identity.read_text()) | {"inputs": inputs}))
    (store.inputs / "model").mkdir(parents=True)
    file = tmp_path / "best.yml"
    text = said(store, capsys, "--write", str(file))
    written = yaml.safe_load(file.read_text())
    assert written == runnable_config(store, one.key)
    assert (written["base_model"], written["datasets"]) == (str(store.inputs / "model"), [{"path": "/rows.jsonl"}])
    assert f"Its config: {file}" in text
    assert f"base={file} " in text


def test_a_file_with_other_content_is_not_overwritten(
    store: Store, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    swept(store, {1e-4: 2.0})
    file = tmp_path / "mine.yml"
    file.write_text("mine: true\n")
    assert main(["best", "--store", str(store.root), "--write", str(file)]) == 2
    assert "already exists with other content" in capsys.readouterr().err
    assert file.read_text() == "mine: true\n"


def test_several_tables_have_no_best_of_all_and_are_named(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [run({"sequence_len": length}) for length in (1, 2)]
    for one, rows in zip(runs, ("aaaaaaaaaaaa", "bbbbbbbbbbbb"), strict=True):
        finish_run(store, one, {9: 1.0}, eval_fingerprint=rows)
    rows_of = compare_sweep(store, open_sweep(store, runs).sweep)
    with pytest.raises(
        SweepError, match=r"2 different sets of held-out rows.*\n.*eval_fingerprint=aaaaaaaa  1 run, best"
    ) as printed:
        winner(rows_of, LOSS)
    assert f"eval_fingerprint=bbbbbbbb  1 run, best {runs[1].key}" in str(printed.value)
    assert said(store, capsys, "--where", "eval_fingerprint=bbbb").startswith(f"Best: {runs[1].key}")


def test_without_a_finished_run_there_is_no_winner(store: Store) -> None:
    runs = [run({"learning_rate": 1}), run({"learning_rate": 2})]
    finish_run(store, runs[0], {0: 1.0, 9: math.nan})
    with pytest.raises(
        SweepError, match=r"No run has finished with eval_loss yet \(their status: pending, succeeded\)"
    ):
        winner(compare_sweep(store, open_sweep(store, runs).sweep), LOSS)


def test_finished_runs_without_held_out_rows_are_not_called_unfinished(store: Store) -> None:
    one = run({"learning_rate": 1})
    finish_run(store, one, {}, eval_fingerprint="")
    rows_of = compare_sweep(store, open_sweep(store, [one]).sweep)
    with pytest.raises(SweepError, match=r"These runs have finished without held-out rows.*val_set_size"):
        winner(rows_of, LOSS)


def test_a_sweep_means_its_only_run_or_its_best_wherever_one_run_is_needed(store: Store) -> None:
    runs = [run({"learning_rate": rate}) for rate in (1, 2)]
    sweep = open_sweep(store, runs).sweep
    requested = Ledger(store, sweep).plan().runs
    assert best_run(requested[:1], compare_sweep(store, sweep)).key == runs[0].key, "though it has no loss yet"
    with pytest.raises(SweepError, match=r"No run has finished with eval_loss yet.*Or name one of its runs"):
        best_run(requested, compare_sweep(store, sweep))
    for one, loss in zip(runs, (2.0, 1.0), strict=True):
        finish_run(store, one, {9: loss})
    assert best_run(requested, compare_sweep(store, sweep)).key == runs[1].key
