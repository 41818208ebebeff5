"""How a comparison shows what `axosweep eval` has measured."""

import csv
import io
import json
from collections.abc import Mapping

import pytest

from modal_app.store.layout import Store, after_key
from modal_app.store.step import Outcome, OutcomeStatus, StepKind
from runner.cli import main
from runner.compare.csv_form import rows_csv
from runner.compare.ranking import Metric, rows_from
from runner.compare.source import facts_of_sweep
from runner.compare.table import columns_of
from runner.html_report.gather import gather
from runner.store.ledger import sweep_ids
from runner.types import Run
from tests.runner.builders import finish_run, open_sweep, run
from tests.runner.test_report import strict_json

ACCURACY = "tasks/quiz/acc"


def measure(
    store: Store,
    one: Run,
    metrics: Mapping[str, float],
    *,
    own: str = "aaa",
    at: float = 2000.0,
    judged_by: str = "quiz-1",
    status: OutcomeStatus = OutcomeStatus.SUCCEEDED,
) -> None:
    """What an evaluate step leaves."""
    folder = store.folder(StepKind.EVALUATE, after_key(one.key, own))
    folder.path.mkdir(parents=True, exist_ok=True)
    facts = {"metrics": dict(metrics), "higher_is_better": {ACCURACY: True}, "judged_by": judged_by}
    folder.done.write_text(Outcome(status, 1, at - 1, at, facts=facts).to_json())


@pytest.fixture
def two(store: Store) -> tuple[Run, Run]:
    """A run with the lower loss, and one with other held-out rows that is better at the quiz."""
    runs = run({"learning_rate": 1, "val_set_size": 0.1}), run({"learning_rate": 2, "val_set_size": 0.2})
    open_sweep(store, runs)
    finish_run(store, runs[0], {0: 3.0, 9: 1.0}, eval_fingerprint="rows")
    finish_run(store, runs[1], {0: 3.0, 9: 2.0}, eval_fingerprint="other rows")
    measure(store, runs[0], {ACCURACY: 0.25})
    measure(store, runs[1], {ACCURACY: 0.75})
    return runs


def compared(store: Store, capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, object]]:
    assert main(["compare", "--json", *words, "--store", str(store.root)]) == 0
    rows: list[dict[str, object]] = strict_json(capsys.readouterr().out)["runs"]
    return rows


def test_a_task_ranks_runs_by_what_it_says_is_better_whatever_rows_they_held_out(
    store: Store, two: tuple[Run, Run], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = compared(store, capsys, "--metric", ACCURACY)
    assert [(row["key"], row["final"], row["is_best"]) for row in rows] == [
        (two[1].key, 0.75, True),
        (two[0].key, 0.25, False),
    ]
    assert main(["best", "--metric", ACCURACY, "--json", "--store", str(store.root)]) == 0
    assert json.loads(capsys.readouterr().out)["run"]["key"] == two[1].key


def test_the_best_by_a_task_is_shown_without_a_first_value_and_named_as_the_best_by_that_task(
    store: Store, two: tuple[Run, Run], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["best", "--metric", ACCURACY, "--store", str(store.root)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"Best: {two[1].key}")
    assert said[1] == "quiz/acc: 0.7500"
    assert any(f"--metric {ACCURACY} --maximize --write best.yml" in line for line in said)


def test_by_the_loss_they_stand_as_before_with_the_task_in_a_column_of_its_own(
    store: Store, two: tuple[Run, Run], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = compared(store, capsys)
    assert [(row["final"], row["is_best"], row["measured"]) for row in rows] == [
        (2.0, True, {ACCURACY: 0.75}),
        (1.0, True, {ACCURACY: 0.25}),
    ]
    columns = columns_of(rows_from(facts_of_sweep(store, *sweep_ids(store))), Metric())
    (column,) = (one for one in columns if "quiz" in one.heading)
    assert (column.heading, column.cells) == ("quiz/acc", ("0.7500", "0.2500"))


def test_csv_and_the_report_have_it_too(store: Store, two: tuple[Run, Run]) -> None:
    read = csv.DictReader(io.StringIO(rows_csv(rows_from(facts_of_sweep(store, *sweep_ids(store))), Metric())))
    assert {one["key"]: one[ACCURACY] for one in read} == {two[0].key: "0.25", two[1].key: "0.75"}
    assert {one["key"]: one["measured"] for one in gather(store, *sweep_ids(store))["runs"]} == {
        two[0].key: {"quiz/acc": 0.25},
        two[1].key: {"quiz/acc": 0.75},
    }


def test_sort_takes_what_was_measured(store: Store, two: tuple[Run, Run], capsys: pytest.CaptureFixture[str]) -> None:
    finish_run(store, two[1], {}, eval_fingerprint="rows")
    rows = compared(store, capsys, "--sort", ACCURACY, "--reverse")
    assert [row["key"] for row in rows] == [two[1].key, two[0].key]


def test_answers_to_other_questions_are_never_ranked_together(
    store: Store, two: tuple[Run, Run], capsys: pytest.CaptureFixture[str]
) -> None:
    """The task's file was edited between the two."""
    measure(store, two[0], {ACCURACY: 0.99}, own="bbb", at=3000.0, judged_by="quiz-2")
    rows = compared(store, capsys, "--metric", ACCURACY)
    assert {row["key"]: row["eval_fingerprint"] for row in rows} == {two[0].key: "quiz-2", two[1].key: "quiz-1"}
    assert all(row["is_best"] for row in rows)
    assert main(["compare", "--metric", ACCURACY, "--store", str(store.root)]) == 0
    assert "the task's files have changed" in capsys.readouterr().out


def test_of_what_was_measured_twice_the_newest_counts_and_what_failed_does_not(
    store: Store, two: tuple[Run, Run], capsys: pytest.CaptureFixture[str]
) -> None:
    measure(store, two[0], {ACCURACY: 0.5}, own="000", at=2500.0)
    measure(store, two[0], {ACCURACY: 0.1}, own="zzz", at=1500.0)
    measure(store, two[0], {ACCURACY: 0.0}, own="yyy", at=9000.0, status=OutcomeStatus.FAILED)
    assert {row["key"]: row["final"] for row in compared(store, capsys, "--metric", ACCURACY)}[two[0].key] == 0.5


def test_a_run_that_was_not_asked_cannot_win(
    store: Store, two: tuple[Run, Run], capsys: pytest.CaptureFixture[str]
) -> None:
    store.folder(StepKind.EVALUATE, after_key(two[1].key, "aaa")).done.unlink()
    rows = compared(store, capsys, "--metric", ACCURACY)
    assert [(row["key"], row["final"], row["is_best"]) for row in rows] == [
        (two[0].key, 0.25, True),
        (two[1].key, None, False),
    ]


def test_a_loss_that_training_never_logged_is_the_measured_one_and_a_logged_one_stays(
    store: Store, two: tuple[Run, Run], capsys: pytest.CaptureFixture[str]
) -> None:
    store.folder(StepKind.TRAIN, two[0].key).metrics.unlink()
    measure(store, two[0], {"eval_loss": 0.5}, own="bbb")
    measure(store, two[1], {"eval_loss": 7.0}, own="bbb")
    rows = {row["key"]: (row["final"], row["first"]) for row in compared(store, capsys)}
    assert rows == {two[0].key: (0.5, None), two[1].key: (2.0, 3.0)}


def test_a_task_that_was_not_evaluated_is_refused_with_the_command_for_it(
    store: Store, two: tuple[Run, Run], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", "--metric", "tasks/quiz/ac", "--store", str(store.root)]) == 2
    said = capsys.readouterr().err
    assert f"Did you mean {ACCURACY}?" in said
    assert "`axosweep eval --tasks NAME` measures a task" in said
