import json
import math
from pathlib import Path

import pytest

from runner.compare.metrics import Curves, read_curves


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "metrics.jsonl"


def write(file: Path, *rows: object) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_a_run_that_has_logged_nothing_has_no_curves(file: Path) -> None:
    curves = read_curves(file)
    assert (curves.by_name, curves.step) == ({}, None)
    assert (curves.first("loss"), curves.final("loss"), curves.best("loss")) == (None, None, None)


def test_first_best_and_final_go_by_step_and_not_by_line(file: Path) -> None:
    curves = read_curves(write(file, *({"step": step, "loss": loss} for step, loss in [(9, 3.0), (0, 5.0), (5, 1.0)])))
    assert list(curves.by_name["loss"]) == [0, 5, 9]
    assert (curves.first("loss"), curves.best("loss"), curves.final("loss")) == (5.0, 1.0, 3.0)


def test_a_resumed_run_counts_what_it_wrote_last_for_a_step(file: Path) -> None:
    rows = [{"step": 1, "attempt": 1, "loss": 4.0}, {"step": 2, "attempt": 1, "loss": 9.0}, {"step": 2, "loss": 2.0}]
    assert read_curves(write(file, *rows)).by_name == {"loss": {1: 4.0, 2: 2.0}}


def test_names_that_describe_the_line_and_values_that_are_not_numbers_are_not_curves(file: Path) -> None:
    row = {"step": 1, "attempt": 2, "time": 3.0, "loss": 1, "note": "x", "flag": True, "none": None, "list": [1]}
    assert read_curves(write(file, row)).by_name == {"loss": {1: 1.0}}


def test_lines_that_are_not_rows_are_left_out(file: Path) -> None:
    rows: list[object] = [[], "x", None, {"loss": 1.0}, {"step": None, "loss": 1.0}, {"step": math.inf, "loss": 1.0}]
    write(file, *rows, {"step": 3, "loss": 2.0})
    assert read_curves(file).by_name == {"loss": {3: 2.0}}


def test_a_torn_last_line_is_left_out_wherever_it_was_torn(file: Path) -> None:
    whole = write(file, {"step": 1, "loss": 1.0}, {"step": 2, "loss": 2.25}).read_bytes()
    last = whole.index(b"\n") + 1
    for cut in range(last, len(whole) - 1):
        file.write_bytes(whole[:cut])
        assert read_curves(file).by_name == {"loss": {1: 1.0}}, cut


def test_nan_is_shown_as_the_final_value_and_never_wins(file: Path) -> None:
    curves = read_curves(
        write(file, {"step": 1, "loss": math.nan}, {"step": 2, "loss": 7.0}, {"step": 3, "loss": math.nan})
    )
    assert curves.best("loss") == 7.0
    assert math.isnan(curves.final("loss") or 0)


def test_the_last_step_is_that_of_any_curve() -> None:
    assert Curves({"loss": {1: 1.0, 8: 1.0}, "eval_loss": {4: 1.0}, "none": {}}).step == 8
