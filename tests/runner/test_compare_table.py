import csv
import io
from dataclasses import fields, replace

import pytest
from rich.console import Console

from modal_app.store.layout import Store
from modal_app.store.step import FailureReason, OutcomeStatus, StepKind
from runner.cli import main
from runner.compare.comparison import SweepSelection, comparison
from runner.compare.csv_form import rows_csv
from runner.compare.ranking import Metric, Row, compare_sweep
from runner.compare.show import Form, show
from runner.compare.table import columns_of, fitted, markdown
from runner.types import Run
from tests.runner.builders import finish, finish_run, open_sweep, run

LOSS = Metric()


def swept(store: Store, runs: list[Run]) -> list[Row]:
    for place, one in enumerate(runs):
        finish_run(store, one, {0: 5.0, 100: 2.0 + place / 10})
    return compare_sweep(store, open_sweep(store, runs, "a-sweep").sweep)


def wide(number: int = 2) -> list[Run]:
    """Runs of many parameters, so that a terminal has no room for all."""
    names = ["learning_rate", "lora_r", *(f"parameter_{place}" for place in range(6))]
    return [run({name: (row >> place & 1) + 1 for place, name in enumerate(names)}) for row in range(1 << number)]


def on_a_terminal(store: Store, rows: list[Row], width: int) -> str:
    requested = [SweepSelection(store, rows[0].sweeps[0])]
    text = io.StringIO()
    show(comparison(rows, requested), requested, Form.TABLE, Console(file=text, width=width, highlight=False))
    return text.getvalue()


@pytest.mark.parametrize("width", [80, 100, 120])
def test_a_terminals_width_is_respected_and_the_less_informative_columns_go_first(store: Store, width: int) -> None:
    every = wide(8)
    rows = swept(store, [every[0], *(every[1 << place] for place in range(8))])
    lines = on_a_terminal(store, rows, width).splitlines()
    heading = next(line for line in lines if "eval loss" in line)
    row = next(line for line in lines if rows[0].key in line)
    assert len(heading.rstrip()) <= width
    assert "…" not in heading + row
    assert all(kept in heading for kept in ("run", "learning_rate", "lora_r", "eval loss", "status"))
    assert row.rstrip().endswith("succeeded")
    assert "first" not in heading
    assert "parameter_5" not in heading
    (printed,) = [line for line in lines if line.startswith("Columns not shown: ")]
    assert printed.startswith("Columns not shown: `first`, `seconds`, `best`, `steps`, `parameter_5`")


def test_a_value_of_several_lines_is_one_line_of_a_table(store: Store) -> None:
    rows = swept(store, [run({"chat_template_jinja": f"{{% for one in messages %}}\n  {end}\n"}) for end in "ab"])
    assert {row.params["chat_template_jinja"][-2:] for row in rows} == {"a\n", "b\n"}
    assert "  {% for one in messages %} a  " in on_a_terminal(store, rows, 200)
    assert len(markdown(columns_of(rows, LOSS)).splitlines()) == 2 + len(rows)


def test_paths_with_the_same_end_are_told_apart(store: Store) -> None:
    rows = swept(store, [run({"base_model": f"/srv/{name}/out/model"}) for name in ("first", "second")])
    text = on_a_terminal(store, rows, 200)
    assert "  /srv/first/out/model  " in text
    assert "  /srv/second/out/model  " in text


def test_wide_values_are_shortened_and_neither_the_mark_nor_the_status_nor_a_number_is(store: Store) -> None:
    models = [f"a-publisher-with-a-long-name/a-model-of-{'very-' * 9}many-parameters-{size}B" for size in (1, 8)]
    rows = swept(store, [run({"base_model": model, "dataset": model * 2, "lora_r": 8}) for model in models])
    lines = on_a_terminal(store, rows, 80).splitlines()
    heading = next(line for line in lines if "eval loss" in line)
    winner, other = (next(line for line in lines if row.key in line) for row in rows)
    assert winner.startswith(f"*  {rows[0].key}")
    assert all(line.rstrip().endswith("succeeded") and len(line.rstrip()) <= 80 for line in (winner, other))
    assert ("2.0000" in winner, "2.1000" in other) == (True, True)
    assert ("1B  " in winner, "8B  " in other, "base_model" in heading) == (True, True, True)


def test_a_terminal_that_is_too_narrow_for_anything_still_has_the_mark_and_the_status(store: Store) -> None:
    text = on_a_terminal(store, swept(store, wide()), 30)
    winner = next(line for line in text.splitlines() if line.startswith("* "))
    assert winner.rstrip().endswith("succeeded")


def test_a_wide_terminal_has_every_column_and_says_nothing_of_room(store: Store) -> None:
    text = on_a_terminal(store, swept(store, wide()), 200)
    assert "do not fit" not in text
    assert "first" in text


def test_what_no_run_has_is_not_a_column(store: Store) -> None:
    headings = [one.heading for one in columns_of(swept(store, wide()), LOSS)]
    assert not {"dollars", "paid s", "gpu", "peak GiB", "tok/s", "flags", "tries"} & set(headings)


def test_a_flag_a_second_attempt_and_the_class_of_a_stop_are_columns_once_there_are_any(store: Store) -> None:
    one, other = run({"lora_r": 1}), run({"lora_r": 2})
    finish(store, StepKind.TRAIN, one.key, OutcomeStatus.LOST)
    finish_run(store, one, {0: 1.0, 9: 5.0})
    finish(store, StepKind.TRAIN, other.key, OutcomeStatus.STOPPED, reason=FailureReason.PREEMPTED)
    cells = {
        column.heading: column.cells
        for column in columns_of(compare_sweep(store, open_sweep(store, [one, other]).sweep), LOSS)
    }
    assert (cells["flags"][0], cells["tries"][0], cells["status"][1]) == ("diverged", "2", "stopped (preempted)")


def test_columns_are_dropped_in_one_order_and_only_as_many_as_it_takes(store: Store) -> None:
    columns = columns_of(swept(store, wide()), LOSS)
    whole = sum(one.width for one in columns) + 2 * (len(columns) - 1)
    assert fitted(columns, whole) == (list(columns), [])
    kept, dropped = fitted(columns, whole - 1)
    assert dropped == ["first"]
    assert len(kept) == len(columns) - 1
    assert fitted(columns, 1)[1][:2] == ["first", "seconds"]


def test_markdown_is_a_table_that_a_bar_in_a_value_does_not_break(store: Store) -> None:
    rows = swept(store, [run({"chat_template": text}) for text in ("a|b", "c")])
    lines = markdown(columns_of(rows, LOSS)).splitlines()
    assert lines[0].startswith("|  | run | chat_template | eval loss |")
    assert {line.replace("\\|", "").count("|") for line in lines} == {lines[0].count("|")}
    assert "a\\|b" in lines[2]


def test_csv_has_every_field_and_each_parameter_under_its_own_name(store: Store) -> None:
    rows = swept(store, [run({"lora_r": 8, "status": 1}), run({"lora_r": 16, "status": 2})])
    read = list(csv.DictReader(io.StringIO(rows_csv(rows, LOSS))))
    assert [(one["key"], one["final"], one["metric"]) for one in read] == [
        (row.key, "2.0" if row.is_best else "2.1", "eval_loss") for row in rows
    ]
    assert {one.name for one in fields(Row)} - {
        "params",
        "record",
        "measured",
        "over_seeds",
        "rungs",
        "receipt",
    } <= set(read[0])
    assert [one["over_seeds.n"] for one in read] == ["", ""]
    assert read[0]["status"] == "succeeded", "a parameter of a field's name does not hide it"


def test_what_the_seeds_of_a_setting_say_has_columns_of_csv_and_a_lucky_seed_a_note(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [run({"lora_r": rank, "seed": seed}) for rank, seed in ((8, 1), (8, 2), (16, 1))]
    for one, loss in zip(runs, (1.0, 3.0, 1.5), strict=True):
        finish_run(store, one, {9: loss})
    sweep = open_sweep(store, runs).sweep
    read = list(csv.DictReader(io.StringIO(rows_csv(compare_sweep(store, sweep), LOSS))))
    assert [(one["lora_r"], one["over_seeds.n"], one["over_seeds.mean"]) for one in read] == [
        ("16", "", ""), ("8", "2", "2.0"), ("8", "2", "2.0"),
    ]  # fmt: skip
    assert main(["compare", sweep, "--store", str(store.root)]) == 0
    assert "The best one was trained with one seed, so chance may have favoured it." in capsys.readouterr().out


def test_a_text_that_a_spreadsheet_would_run_as_a_formula_begins_with_an_apostrophe(store: Store) -> None:
    texts = ["=1+1", "+x", "-r 8", "@SUM(A1)", "\t=1+1", "-0.5", "+1e-4", "x=1", "-inf"]
    params = {f"p{place}": text for place, text in enumerate(texts)} | {"=p": -2, "l": ["=1", "2"], "f": -1e-4}
    (row,) = swept(store, [run({"lora_r": 8})])
    (read,) = csv.DictReader(io.StringIO(rows_csv([replace(row, params=params, message="@x")], LOSS)))
    assert [read[f"p{place}"] for place in range(len(texts))] == [
        "'=1+1", "'+x", "'-r 8", "'@SUM(A1)", "'\t=1+1", "-0.5", "+1e-4", "x=1", "'-inf",
    ]  # fmt: skip
    assert (read["'=p"], read["l"], read["f"], read["message"]) == ("-2", "'=1 2", "-0.0001", "'@x")


def test_a_number_that_is_none_is_an_empty_cell_of_csv(store: Store) -> None:
    one = run({"lora_r": 8})
    finish_run(store, one, {0: 1.0, 9: float("nan")})
    rows = compare_sweep(store, open_sweep(store, [one]).sweep)
    (read,) = csv.DictReader(io.StringIO(rows_csv(rows, LOSS)))
    assert (read["final"], read["flags"], read["best"]) == ("", "diverged", "1.0")
