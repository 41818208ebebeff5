"""`axosweep eval`, up to the start of a trainer, and how it shows what was measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from modal_app.store.layout import Store
from modal_app.store.step import Outcome, OutcomeStatus, StepKind
from runner.cli import main
from runner.environment.trainer_environment import identity
from runner.follow_up.base_model import base_evaluations
from runner.follow_up.steps import evaluate_step
from runner.follow_up.subjects import VERSIONS, Subject, subjects
from runner.store.ledger import steps_after, sweep_ids, sweeps_after
from runner.types import PlannedStep, Run
from tests.printed_json import read_printed
from tests.runner.builders import begin_attempt, finish_run, open_sweep, run
from tests.runner.fake_trainer import make_trainer


def finished(store: Store, one: Run, loss: float, *, eval_rows: int = 7) -> None:
    finish_run(store, one, {0: 3.0, 9: loss})
    store.folder(StepKind.TRAIN, one.key).config.write_text(yaml.safe_dump(dict(one.config)))
    manifest = store.manifest(one.data_key)
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"eval_rows": eval_rows}))


def lora(**config: Any) -> Run:
    return run({"adapter": "lora", "val_set_size": 0.1, "base_model": "inputs/tiny", **config})


@pytest.fixture
def two(store: Store) -> tuple[Run, Run]:
    """The first is the better one."""
    runs = lora(learning_rate=1), lora(learning_rate=2)
    open_sweep(store, runs)
    for one, loss in zip(runs, (1.0, 2.0), strict=True):
        finished(store, one, loss)
    return runs


def say(store: Store, step: PlannedStep, metrics: Mapping[str, float], **facts: Any) -> None:
    """As if the step had run."""
    folder = store.folder(StepKind.EVALUATE, step.step.key)
    folder.path.mkdir(parents=True)
    printed = {"metrics": dict(metrics), **facts}
    folder.done.write_text(Outcome(OutcomeStatus.SUCCEEDED, 1, 1.0, 2.0, facts=printed).to_json())


def quiz() -> dict[str, Any]:
    """The options of `--tasks quiz`."""
    return {
        "tasks": ["quiz"], "include": None, "limit": None, "num_fewshot": None, "chat_template": True, "batch_size": 8,
    }  # fmt: skip


def evaluated(store: Store, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(["eval", *words, "--store", str(store.root)])
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    return code, said.out, said.err


def refused(store: Store, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    code, out, err = evaluated(store, capsys, *words)
    assert (code, out) == (2, "")
    assert not list(store.root.glob("runs/*/evaluate"))
    return err


def test_every_finished_run_is_shown_the_base_model_first_then_the_best(
    store: Store, two: tuple[Run, Run], capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = subjects([store], None, every=True)
    for one, loss in zip(chosen, (2.5, 1.5), strict=True):
        say(store, evaluate_step(one, {}), {"eval_loss": loss})
    (base,) = base_evaluations(chosen, {})
    say(store, base, {"eval_loss": 3.0})
    code, out, _ = evaluated(store, capsys, "--base")
    assert code == 0
    rows = [line.split() for line in out.splitlines()[1:4]]
    assert rows[0] == ["the", "base", "model", "3.0000"]
    assert [(row[0], row[-1]) for row in rows[1:]] == [(two[1].key, "1.5000"), (two[0].key, "2.5000")]
    code, out, _ = evaluated(store, capsys, "--base", "--json")
    lines = read_printed("eval", out)["lines"]
    assert [(one["run"], one["metrics"]["eval_loss"]) for one in lines] == [
        (None, 3.0),
        (two[1].key, 1.5),
        (two[0].key, 2.5),
    ]


def test_the_report_is_not_written_again_so_the_command_for_it_is_printed(
    store: Store, two: tuple[Run, Run], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", "--store", str(store.root)]) == 0
    (report,) = store.sweeps.glob("*/report.html")
    before = report.read_bytes()
    (one,) = subjects([store], None)
    say(store, evaluate_step(one, {}), {"eval_loss": 1.0})
    assert "report" not in evaluated(store, capsys, "--best")[2], "a loss is not in it"
    say(store, evaluate_step(one, quiz()), {"tasks/quiz/acc": 0.75})
    _, _, err = evaluated(store, capsys, "--best", "--tasks", "quiz")
    assert err.endswith(f"axosweep report {one.sweep}\n")
    assert report.read_bytes() == before
    assert evaluated(store, capsys, "--best", "--tasks", "quiz", "--json")[2] == ""
    assert main(["report", "--store", str(store.root)]) == 0
    assert report.read_bytes() != before


def test_of_a_metric_that_should_be_high_the_highest_comes_first_with_its_error(
    store: Store, two: tuple[Run, Run], capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = subjects([store], None, every=True)
    name = "tasks/quiz/acc"
    for one, value in zip(chosen, (0.25, 0.75), strict=True):
        say(store, evaluate_step(one, quiz()), {name: value}, stderr={name: 0.1}, higher_is_better={name: True})
    code, out, _ = evaluated(store, capsys, "--tasks", "quiz")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[1:3]] == [two[1].key, two[0].key]
    assert "0.7500 ± 0.1000" in out
    assert f"--metric {name}" in out


def test_best_is_the_best_run_alone(store: Store, two: tuple[Run, Run], capsys: pytest.CaptureFixture[str]) -> None:
    (one,) = subjects([store], None)
    say(store, evaluate_step(one, {}), {"eval_loss": 1.0})
    code, out, _ = evaluated(store, capsys, "--best", "--json")
    assert code == 0
    assert [line["run"] for line in json.loads(out)["lines"]] == [two[0].key]


def test_the_same_question_is_the_same_step_and_any_other_is_not(store: Store, two: tuple[Run, Run]) -> None:
    one, other = subjects([store], None, every=True)
    keys = {evaluate_step(one, options).step.key for options in ({}, {"tasks": ["a"]}, {"tasks": ["a"], "limit": 5})}
    assert len(keys) == 3
    assert evaluate_step(one, {}).step.key == evaluate_step(one, {}).step.key
    assert evaluate_step(other, {}).step.key not in keys


def test_runs_share_a_base_model_where_only_training_differs_and_held_out_rows_where_those_are_equal(
    store: Store,
) -> None:
    runs = [lora(learning_rate=1), lora(learning_rate=2, lora_r=4), lora(learning_rate=1, seed=2)]
    runs.append(lora(learning_rate=1, base_model="inputs/other"))
    open_sweep(store, runs)
    for one in runs:
        finished(store, one, 1.0)
    chosen = subjects([store], None, every=True)
    assert len(base_evaluations(chosen, {"tasks": ["a"]})) == 2
    assert len({one.step.key for one in base_evaluations(chosen, {})}) == 3
    assert {one.step.run for one in base_evaluations(chosen, {})} == {""}


def test_the_loss_of_a_base_model_is_shared_where_as_many_rows_are_rated_at_once(store: Store) -> None:
    """The loss is a mean of the batches' means, so another batch size gives another number."""
    sizes = ({"micro_batch_size": 2}, {"micro_batch_size": 4, "eval_batch_size": 2}, {"micro_batch_size": 4})
    runs = [lora(learning_rate=number, **size) for number, size in enumerate(sizes)]
    open_sweep(store, runs)
    for one in runs:
        finished(store, one, 1.0)
    chosen = subjects([store], None, every=True)
    by_key = {one.key: one for one in chosen}
    two_at_once, another = [by_key[one.key] for one in runs[:2]], by_key[runs[2].key]
    assert len({one.step.key for one in base_evaluations(two_at_once, {})}) == 1
    assert len({one.step.key for one in base_evaluations([*two_at_once, another], {})}) == 2
    assert len(base_evaluations(chosen, {"tasks": ["a"]})) == 1


def test_another_trainer_of_the_run_or_another_version_of_our_code_is_another_step(
    store: Store, two: tuple[Run, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = subjects([store], None, every=True)[0]

    def keys(subject: Subject) -> set[str]:
        return {evaluate_step(subject, {}).step.key, base_evaluations([subject], {})[0].step.key}

    plain = keys(one)
    assert keys(replace(one, identity={**one.identity, "trainer_lock": identity(None)})) == plain
    other = keys(replace(one, identity={**one.identity, "trainer_lock": "of an image"}))
    assert len(plain | other) == 4
    monkeypatch.setitem(VERSIONS, StepKind.EVALUATE, VERSIONS[StepKind.EVALUATE] + 1)
    assert len(plain | keys(one)) == 4


def test_an_evaluation_that_left_no_losses_by_row_is_done_again_and_one_on_tasks_is_not(
    store: Store, two: tuple[Run, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = subjects([store], None)[0]
    rows, tasks = evaluate_step(one, {}).step.key, evaluate_step(one, quiz()).step.key
    monkeypatch.setattr("runner.follow_up.subjects.HELD_OUT_VERSION", 1)
    assert evaluate_step(one, {}).step.key != rows
    assert evaluate_step(one, quiz()).step.key == tasks


def test_what_is_about_to_be_done_is_written_down_before_it_begins(
    store: Store, two: tuple[Run, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """The ledger is also written with a trainer that cannot do anything: `gc` and `cancel` read it."""
    monkeypatch.setenv("AXOSWEEP_TRAINER", str(make_trainer(tmp_path / "trainer")))
    code, _, err = evaluated(store, capsys, "--best")
    assert code == 1, err
    (name,) = [name for sweep in sweep_ids(store) for name in sweeps_after(store, sweep)]
    assert [(step.kind, step.run, step.sweep) for step in steps_after(store, name)] == [
        (StepKind.EVALUATE, two[0].key, name)
    ]


def test_a_run_without_held_out_rows_is_refused_with_the_way_out(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    one = lora(val_set_size=0)
    open_sweep(store, [one])
    finished(store, one, 1.0, eval_rows=0)
    said = refused(store, capsys)
    assert f"{one.key} has no held-out rows" in said
    assert "val_set_size=0.05" in said
    assert "--tasks" in said


def test_an_unknown_run_is_refused_with_the_nearest(
    store: Store, two: tuple[Run, Run], capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = two[0].key[:-1] + ("0" if two[0].key[-1] != "0" else "1")
    assert f"There is no run or sweep {wrong} in {store.root}. Did you mean {two[0].key}" in refused(
        store, capsys, wrong
    )


def test_an_unfinished_run_is_refused_and_of_a_sweep_left_out(
    store: Store, two: tuple[Run, Run], capsys: pytest.CaptureFixture[str]
) -> None:
    late = lora(learning_rate=3)
    open_sweep(store, [*two, late], "later")
    begin_attempt(store, StepKind.TRAIN, late.key)
    assert f"The run {late.key} has not finished" in refused(store, capsys, late.key)
    assert late.key not in {one.key for one in subjects([store], "later", every=True)}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--limit", "5"), "--limit needs tasks"),
        (("--no-chat-template", "--num-fewshot", "0"), "--num-fewshot, --no-chat-template needs tasks"),
        (("--tasks", "a,,b"), "a name is empty"),
        (("--tasks", "a", "--include-path", "nowhere"), "--include-path nowhere does not exist"),
        (("--tasks", "a", "--include-path", "file"), "--include-path file is not a folder"),
        (("--tasks", "a", "--include-path", "."), "has no .yaml file"),
    ],
)
def test_words_that_mean_nothing_are_refused_in_one_message(
    store: Store,
    two: tuple[Run, Run],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    said: str,
) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "file").touch()
    monkeypatch.chdir(folder)
    assert said in refused(store, capsys, *words)
