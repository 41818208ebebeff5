import json
import math
from dataclasses import replace
from typing import Any

import pytest

from modal_app.store.layout import Store
from modal_app.store.step import FailureReason, OutcomeStatus, StepKind
from runner.compare.ranking import compare_sweep
from runner.console import terminal
from runner.launch.printed_plan import datasets_of, runs_of
from runner.show import tables
from runner.show.status import all_sweeps
from runner.types import Input, InputKind, Run
from tests.runner.builders import finish, finish_run, open_sweep, plan, run


def strict_json(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def shown(store: Store, runs: list[Run], capsys: pytest.CaptureFixture[str]) -> str:
    sweep = open_sweep(store, runs).sweep
    tables.show_rows(compare_sweep(store, sweep), store, sweep, as_json=False)
    return capsys.readouterr().out


def test_the_table_has_a_row_per_run_and_names_the_best_and_where_it_lies(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [run({"learning_rate": rate}) for rate in (1e-4, 2e-4)]
    finish_run(store, runs[0], {0: 5.0, 9: 2.0})
    finish_run(store, runs[1], {0: 5.0, 9: 1.5})
    lines = shown(store, runs, capsys).splitlines()
    best, other = (next(line for line in lines if one.key in line) for one in runs[::-1])
    assert best.split() == ["*", runs[1].key, "0.0002", "1.5000", "1.5000", "5.0000", "9", "2.5", "succeeded"]
    assert other.split()[0] == runs[0].key
    assert f"Best: {runs[1].key}  learning_rate=0.0002" in lines
    assert any(line.endswith(f"{store.runs / runs[1].key}/model") for line in lines)


def test_each_set_of_held_out_rows_has_its_own_table_and_no_best_of_all_is_named(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [run({"sequence_len": length}) for length in (1, 2)]
    for one, rows in zip(runs, ("aaaaaaaaaaaa", "bbbbbbbbbbbb"), strict=True):
        finish_run(store, one, {9: 1.0}, eval_fingerprint=rows)
    text = shown(store, runs, capsys)
    assert "held-out rows aaaaaaaa (1 of 2)" in text
    assert "held-out rows bbbbbbbb (2 of 2)" in text
    assert text.count("* ") == 2
    assert "Best:" not in text


def test_a_failure_is_shown_with_its_reason_its_message_and_its_log(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    one = run({"learning_rate": 1})
    attempt = finish(store, StepKind.TRAIN, one.key, OutcomeStatus.FAILED, reason=FailureReason.DATA, message="no rows")
    text = shown(store, [one], capsys)
    assert f"{one.key} failed (data): no rows\n" in text
    assert f"log: {attempt.log}\n" in text


@pytest.mark.parametrize("message", ["unexpected [/INST] in [INST] x", "[red]", "modules ['q', 'v'] of [x]", "\\[a]"])
def test_what_others_wrote_is_shown_as_they_wrote_it(
    store: Store, capsys: pytest.CaptureFixture[str], message: str
) -> None:
    runs = [run({"chat_template": text}) for text in (message, "other")]
    finish(store, StepKind.TRAIN, runs[0].key, OutcomeStatus.FAILED, message=message)
    text = shown(store, runs, capsys)
    assert f"failed: {message}\n" in text
    assert text.count(message) == 2
    unresolved = Input("base_model", message, InputKind.HUB, None, message)
    planned = replace(plan(runs, store), unresolved=(unresolved,))
    tables.show_plan(planned, terminal.results())
    text = capsys.readouterr().out
    assert f"chat_template={message}\n" in text
    assert f"base_model={message}: {message}\n" in text


def test_nothing_is_cut_or_wrapped_in_a_pipe(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    long = [f"{number}-" + "long words in a value " * 10 for number in range(3)]
    names = [f"a_parameter_with_a_long_name_{number}" for number in range(6)]
    runs = [
        run({name: long[(row >> place) & 1] for place, name in enumerate(names)}) for row in (0, 1, 2, 4, 8, 16, 32, 63)
    ]
    for one in runs:
        finish(store, StepKind.TRAIN, one.key, OutcomeStatus.FAILED, message="a message of many words " * 30)
    text = shown(store, runs, capsys)
    assert "…" not in text
    lines = text.splitlines()
    for one in runs:
        row = next(line for line in lines if line.strip().startswith(one.key) and line.rstrip().endswith("failed"))
        assert all(value.strip() in row for value in one.experiment.axolotl.values())
    tables.show_plan(plan(runs, store), terminal.results())
    planned = capsys.readouterr().out.splitlines()
    assert sum(line.strip().startswith(tuple(one.key for one in runs)) for line in planned) == len(runs)


def test_json_has_the_same_rows_and_any_parser_reads_it(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [run({"learning_rate": rate}) for rate in (1, 2, 3)]
    finish_run(store, runs[0], {0: 5.0, 9: 2.0})
    finish_run(store, runs[1], {0: 5.0, 9: math.nan})
    sweep = open_sweep(store, runs).sweep
    rows = compare_sweep(store, sweep)
    tables.show_rows(rows, store, sweep, as_json=True)
    read = strict_json(capsys.readouterr().out)
    assert (read["sweep"], read["store"]) == (sweep, str(store.root))
    assert [one["key"] for one in read["runs"]] == [row.key for row in rows]
    assert [one["final"] for one in read["runs"]] == [2.0, None, None]
    assert [one["is_best"] for one in read["runs"]] == [True, False, False]
    assert [one["params"] for one in read["runs"]] == [row.params for row in rows]


def test_a_plan_says_what_runs_what_is_finished_and_what_was_requested_twice(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = run({"learning_rate": 1}), run({"learning_rate": 2})
    finish(store, StepKind.TRAIN, one.key)
    tables.show_plan(plan([one, two, two], store), terminal.results())
    text = capsys.readouterr().out
    assert "2 runs, 1 dataset (1 to tokenize)" in text
    assert "1 duplicate left out" in text
    assert "1 run finished before, skipped; 1 to train." in text
    assert next(line for line in text.splitlines() if one.key in line).split()[3:] == ["finished", "learning_rate=1"]


def test_a_plan_says_which_runs_have_stopped_at_a_rung(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = run({"learning_rate": 1}), run({"learning_rate": 2})
    finish(store, StepKind.TRAIN, one.key)
    planned = plan([one, two], store)
    runs = tuple(each if each.done else replace(each, at_rung=2) for each in planned.runs)
    tables.show_plan(replace(planned, runs=runs), terminal.results())
    text = capsys.readouterr().out
    assert "  stopped at rung 2  " in text
    assert "skipped; 0 to train." in text
    assert "1 run stopped at a rung; each continues if it is among the best later." in text


def test_a_plan_of_finished_runs_has_nothing_to_tokenize_even_when_their_dataset_was_deleted(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    one = run({"learning_rate": 1})
    finish(store, StepKind.TRAIN, one.key)
    tables.show_plan(plan([one], store), terminal.results())
    text = capsys.readouterr().out
    assert "1 run, 1 dataset (nothing to tokenize)" in text
    assert "1 run finished before, skipped; nothing to do." in text


def test_a_plan_as_json_has_the_same_runs_and_datasets(store: Store) -> None:
    runs = [run({"learning_rate": 1}, overrides=["learning_rate=1"]), run({"sequence_len": 1})]
    finish(store, StepKind.PREPROCESS, runs[1].data_key)
    planned = plan([*runs, runs[0]], store)
    assert [(one.key, one.done, one.copies, one.overrides) for one in runs_of(planned)] == [
        (runs[0].key, False, 2, ("learning_rate=1",)),
        (runs[1].key, False, 1, ()),
    ]
    assert [(one.key, one.done, one.damage, one.runs) for one in datasets_of(planned, store)] == [
        (runs[0].data_key, False, "", (runs[0].key,)),
        (runs[1].data_key, True, "", (runs[1].key,)),
    ]


def test_the_list_of_sweeps_shows_their_counts_as_a_table_and_as_json(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [run({"learning_rate": number}) for number in range(3)]
    finish(store, StepKind.TRAIN, runs[0].key)
    sweep = open_sweep(store, runs).sweep
    tables.show_sweeps(all_sweeps(store), store, as_json=False)
    line = next(line for line in capsys.readouterr().out.splitlines() if sweep in line)
    assert line.split()[-3:] == ["3", "1", "2"]
    tables.show_sweeps(all_sweeps(store), store, as_json=True)
    (read,) = strict_json(capsys.readouterr().out)["sweeps"]
    assert (read["sweep"], read["runs"], read["counts"]) == (sweep, 3, {"succeeded": 1, "pending": 2})
