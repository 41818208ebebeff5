"""`axosweep infer` as far as it goes without a trainer: what is refused, what shares a step, and how answers are
shown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from modal_app.process.attempt import write_yaml
from modal_app.store.layout import BASE_MODEL_KEY, Store, after_key
from modal_app.store.step import StepKind
from runner import cli
from runner.command import infer
from runner.errors import SweepError
from runner.files.answers import answer_sets, column_of
from runner.follow_up.base_model import base_hash
from runner.follow_up.show_answers import show_answers
from runner.follow_up.subjects import Subject, subjects
from runner.html_report.gather import gather
from runner.types import Run
from tests.printed_json import read_printed
from tests.runner.builders import finish_run, open_sweep, run
from tests.runner.report_store import HOSTILE, SECRET, answered

TINY = {"base_model": "inputs/tiny", "chat_template": "chatml", "adapter": "lora", "lora_r": 8}
GREEDY = {"prompts": "inputs/abc.jsonl", "greedy": True, "max_tokens": 256, "base": "b0"}


def finished(store: Store, *configs: Mapping[str, Any]) -> list[Run]:
    """A sweep of successful runs, with their configs as a worker stores them."""
    runs = [run({**TINY, **config}) for config in configs]
    open_sweep(store, runs)
    for one in runs:
        finish_run(store, one, {1: 2.0, 2: float(one.config.get("learning_rate", 1.0))})
        write_yaml(store.folder(StepKind.TRAIN, one.key).config, one.config)
    return runs


def said(capsys: pytest.CaptureFixture[str], store: Store, *words: str) -> str:
    """The message of a command that is refused."""
    assert cli.main(["infer", *words, "--store", str(store.root)]) == 2
    return " ".join(capsys.readouterr().err.split())


def test_prompts_that_cannot_be_used_are_refused_before_anything_starts(
    store: Store, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (one,) = finished(store, {})
    waiting = run(TINY | {"learning_rate": 7.0})
    open_sweep(store, [waiting], "later")
    write_yaml(store.folder(StepKind.TRAIN, waiting.key).config, waiting.config)
    (store.inputs / "tiny").mkdir(parents=True)
    (store.inputs / "tiny" / "config.json").write_text('{"max_position_embeddings": 256}')
    before = sorted(store.root.rglob("*"))

    hello = ("--prompt", "hello")
    assert f"Did you mean {one.key}?" in said(capsys, store, f"{one.key[:-1]}x", *hello)
    assert f"The run {waiting.key} has not finished: it is pending" in said(capsys, store, waiting.key, *hello)
    store.folder(StepKind.TRAIN, waiting.key).removed.write_text("{}")
    assert f"The run {waiting.key} was removed." in said(capsys, store, waiting.key, *hello)
    store.folder(StepKind.TRAIN, waiting.key).removed.unlink()
    assert "No run of later-" in said(capsys, store, "later", *hello)
    assert "There is no prompt" in said(capsys, store, one.key)
    assert "Prompt 1 is empty" in said(capsys, store, one.key, "--prompt", " ")
    large = tmp_path / "large.txt"
    large.write_text("x" * 1_000_000)
    assert "1,000,000 characters" in said(capsys, store, one.key, "--prompts", str(large))
    merged = said(capsys, store, one.key, "--merged", *hello)
    assert merged == f"axosweep: {one.key} has no merged model yet. Create it: axosweep merge {one.key}"
    assert sorted(store.root.rglob("*")) == before


@pytest.mark.parametrize("key", ["reward_model", "process_reward_model"])
def test_a_model_that_gives_no_answers_is_not_prompted(
    store: Store, capsys: pytest.CaptureFixture[str], key: str
) -> None:
    (one,) = finished(store, {key: True})
    assert f"({key} is set)" in said(capsys, store, one.key, "--prompt", "hello")


@pytest.mark.parametrize(
    "words",
    [
        ("--max-tokens", "0"),
        ("--temperature", "0"),
        ("--temperature", "nan"),
        ("--max-tokens", "all"),
        ("--temperature", "hot"),
    ],
)
def test_numbers_that_draw_nothing_are_refused(
    store: Store, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    assert f"{words[0]}: {words[1]}: a " in said(capsys, store, *words, "--prompt", "hello")


@pytest.mark.parametrize("idle", [("--temperature", "0.7"), ("--seed", "0"), ("--seed", "3", "--temperature", "1")])
def test_what_says_how_to_draw_is_refused_where_nothing_is_drawn(
    store: Store, capsys: pytest.CaptureFixture[str], idle: tuple[str, ...]
) -> None:
    refused = said(capsys, store, "--prompt", "hello", "--greedy", *idle)
    assert all(flag in refused for flag in idle if flag.startswith("--"))
    assert "--greedy does not sample" in refused


@pytest.mark.parametrize("words", [("where does Ada live?",), ("some-run", "where", "does", "Ada", "live?")])
def test_a_question_without_its_flag_is_refused_with_the_flag(
    store: Store, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    assert "Ask a question with --prompt" in said(capsys, store, *words)


def test_unless_it_is_said_a_draw_has_the_temperature_and_the_seed_of_earlier_ones() -> None:
    """They are part of the step's key, so answers are found again."""
    requested = infer.parser().read(["--prompt", "hello"])
    assert infer._options(requested) == {"greedy": False, "max_tokens": 256, "temperature": 0.7, "seed": 0}


def test_a_sweep_means_its_finished_runs_the_best_first_under_what_tells_them_apart(store: Store) -> None:
    worse, better = finished(store, {"learning_rate": 2.0}, {"learning_rate": 1.0})
    chosen = subjects([store], None, every=True)
    assert [(one.key, one.name) for one in chosen] == [(better.key, "learning_rate=1"), (worse.key, "learning_rate=2")]


def base_of(config: Mapping[str, Any]) -> str:
    return base_hash(Subject(Store(Path("nowhere")), "sweep", "key", "data", {**TINY, **config}))


def test_the_only_run_of_a_sweep_is_its_best_without_a_loss_and_of_two_one_is_to_be_named(store: Store) -> None:
    runs = [run(TINY | {"learning_rate": rate}) for rate in (1, 2, 3)]
    for one in runs:
        finish_run(store, one, {})
        write_yaml(store.folder(StepKind.TRAIN, one.key).config, one.config)
    open_sweep(store, runs[:1], "alone")
    open_sweep(store, runs[1:], "pair")
    assert [one.key for one in subjects([store], "alone")] == [runs[0].key]
    with pytest.raises(SweepError, match="Or name one of its runs"):
        subjects([store], "pair")


def test_runs_that_differ_in_training_share_their_base_model() -> None:
    shared: list[dict[str, Any]] = [
        {}, {"lora_r": 16, "lora_alpha": 32}, {"learning_rate": 0.1, "num_epochs": 3}, {"seed": 7, "val_set_size": 0.1},
        {"datasets": [{"path": "inputs/a", "split": "train"}]}, {"adapter": None}, {"deepspeed": "inputs/z"},
        {"rl_beta": 0.2}, {"dpo_label_smoothing": 0.1}, {"trl": {"beta": 0.1}},
    ]  # fmt: skip
    assert len({base_of(config) for config in shared}) == 1


def test_runs_whose_base_model_is_prompted_in_another_way_do_not() -> None:
    other: list[dict[str, Any]] = [
        {}, {"base_model": "inputs/other"}, {"revision_of_model": "c0ffee"}, {"chat_template": "llama3"},
        {"special_tokens": {"eos_token": "<|im_end|>"}}, {"load_in_8bit": True}, {"bf16": True},
        {"tokenizer_config": "inputs/other"}, {"datasets": [{"path": "inputs/a", "type": "alpaca"}]},
        {"datasets": [{"path": "inputs/a", "type": "chat_template", "chat_template": "phi_3"}]}, {"rl": "dpo"},
    ]  # fmt: skip
    assert len({base_of(config) for config in other}) == len(other)


def test_the_same_prompts_stand_side_by_side_with_the_base_model_of_these_runs(store: Store) -> None:
    first, second = finished(store, {"learning_rate": 1.0}, {"learning_rate": 2.0})
    names = {first.key: "first", second.key: "second"}
    for one, outputs in ((first, ["a", "b"]), (second, ["a", "a"])):
        answered(store, after_key(one.key, "1"), GREEDY, outputs, "a")
    answered(store, after_key(first.key, "2"), GREEDY | {"greedy": False, "temperature": 0.7}, ["x", "y"])
    answered(store, after_key("", "3"), GREEDY, ["c", "c"], "a")
    answered(store, after_key("", "4"), GREEDY | {"base": "of others"}, ["d", "d"], "a")

    largest, drawn = answer_sets(store, names)
    assert [(one.run, one.name, one.exact, one.judged) for one in largest.columns] == [
        (BASE_MODEL_KEY, "the base model", 0, 2), (first.key, "first", 1, 2), (second.key, "second", 2, 2)
    ]  # fmt: skip
    assert [one.run for one in drawn.columns] == [first.key]
    assert (largest.how(), drawn.how()) == ("greedy, at most 256 tokens", "temperature 0.7, at most 256 tokens")


def test_of_answers_with_different_trainers_the_newest_count(store: Store) -> None:
    (one,) = finished(store, {})
    for own, output, at in (("1", "old", 5.0), ("2", "new", 7.0), ("3", "older", 4.0)):
        answered(store, after_key(one.key, own), GREEDY, [output], at=at)
        answered(store, after_key("", own), GREEDY, [f"base {output}"], at=at)
    answered(store, after_key(one.key, "4"), GREEDY | {"merged": f"{one.key}/1"}, ["merged"])
    (made,) = answer_sets(store, {one.key: ""})
    assert [column.rows[0]["output"] for column in made.columns] == ["base new", "new", "merged"]


def test_an_infer_step_that_has_not_succeeded_has_no_answers(store: Store) -> None:
    assert column_of(store, after_key("run", "1"), "run") is None
    store.folder(StepKind.INFER, after_key("run", "1")).path.mkdir(parents=True)
    assert answer_sets(store, {"run": "run"}) == []


def test_the_report_shows_the_answers_without_secrets_and_as_values(store: Store) -> None:
    runs = finished(store, {"learning_rate": 1.0}, {"learning_rate": 2.0})
    sweep = open_sweep(store, runs).sweep
    assert gather(store, sweep)["answers"] == []
    for one in runs:
        answered(store, after_key(one.key, "1"), GREEDY, [HOSTILE, f"the key is {SECRET}", "z" * 5_000], HOSTILE)
    (table,) = gather(store, sweep)["answers"]
    assert [column["name"] for column in table["columns"]] == ["learning_rate=1", "learning_rate=2"]
    said = table["columns"][0]["said"]
    assert said[0] == table["right"][0] == HOSTILE
    assert SECRET not in said[1]
    assert len(said[2]) < 1_100
    assert table["columns"][0]["is_right"] == [True, False, False]


def test_one_answer_is_printed_alone_and_several_in_a_table(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    (one,) = finished(store, {})
    answered(store, after_key(one.key, "1"), GREEDY, ["[bold]two\nlines"])
    answered(store, after_key(one.key, "2"), GREEDY | {"prompts": "inputs/b"}, ["a", "\x1b[2Jb"], "a")
    answered(store, after_key("", "3"), GREEDY | {"prompts": "inputs/b"}, ["c", "a"], "a")
    alone, several, base = (
        column_of(store, key, name)
        for key, name in ((after_key(one.key, "1"), ""), (after_key(one.key, "2"), "r=8"), (after_key("", "3"), "base"))
    )
    assert alone
    assert several
    assert base
    show_answers([alone], as_json=False)
    assert capsys.readouterr().out == "[bold]two\nlines\n"
    show_answers([base, several], as_json=False)
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    lines = [line.split() for line in shown.splitlines()]
    assert ["question", "0", "a", "c", "a"] in lines
    assert [one.key, "r=8", "1", "2", "50.0", "%"] in lines
    show_answers([base, several], as_json=True)
    rows = read_printed("infer", capsys.readouterr().out)["answers"]
    assert [(row["run"], row["prompt"], row["output"], row["exact"]) for row in rows] == [
        (BASE_MODEL_KEY, "question 0", "c", False), (BASE_MODEL_KEY, "question 1", "a", True),
        (one.key, "question 0", "a", True), (one.key, "question 1", "\x1b[2Jb", False),
    ]  # fmt: skip
