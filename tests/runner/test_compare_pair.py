import io
import math

import pytest
from rich.console import Console

from modal_app.store.layout import Store
from modal_app.store.step import StepKind
from runner.compare.pair import Pair, pair_of, show_pair
from runner.compare.ranking import Metric
from runner.compare.source import facts_of_sweep
from runner.console.plot import overlay
from runner.errors import SweepError
from runner.types import Run
from tests.runner.builders import begin_attempt, finish_run, log_losses, open_sweep, run

LOSS = Metric()
SETTINGS = {"datasets": [{"path": "rows", "type": "alpaca"}], "seed": 1}
ONE = run(SETTINGS | {"learning_rate": 1e-4})
OTHER = run(SETTINGS | {"learning_rate": 2e-4, "warmup_steps": 3, "datasets": [{"path": "rows", "type": "chat"}]})


def pair(store: Store, *runs: Run, metric: Metric = LOSS) -> Pair:
    return pair_of([facts_of_sweep(store, open_sweep(store, [one], one.key).sweep)[0] for one in runs], metric)


@pytest.fixture
def finished(store: Store) -> Store:
    finish_run(store, ONE, {0: 4.0, 10: 2.0})
    finish_run(store, OTHER, {0: 4.0, 10: 1.5})
    return store


def shown(made: Pair) -> str:
    text = io.StringIO()
    show_pair(made, Console(file=text, width=120, highlight=False))
    return text.getvalue()


def test_only_the_config_keys_that_differ_are_listed_by_their_dotted_names(finished: Store) -> None:
    assert pair(finished, ONE, OTHER).config == {
        "datasets.0.type": ("alpaca", "chat"),
        "learning_rate": (1e-4, 2e-4),
        "warmup_steps": (None, 3),
    }
    text = shown(pair(finished, ONE, OTHER))
    assert "  warmup_steps     (not set)  3\n" in text


def test_runs_are_in_the_requested_order_and_the_difference_is_the_second_minus_the_first(finished: Store) -> None:
    made = pair(finished, ONE, OTHER)
    assert ([one.key for one in made.runs], made.difference) == ([ONE.key, OTHER.key], -0.5)
    assert pair(finished, OTHER, ONE).difference == 0.5
    assert f"eval loss: {OTHER.key} is better by 0.5000\n" in shown(made)
    assert f"eval loss: {ONE.key} is worse by 0.5000\n" in shown(pair(finished, OTHER, ONE))


def test_where_more_is_better_the_larger_value_is(finished: Store) -> None:
    made = pair(finished, ONE, OTHER, metric=Metric("eval_loss", maximize=True))
    assert f"{OTHER.key} is worse by 0.5000" in shown(made)


@pytest.mark.parametrize("maximize", [False, True])
def test_a_run_that_ends_with_a_nan_is_neither_better_nor_worse(store: Store, *, maximize: bool) -> None:
    finish_run(store, ONE, {0: 4.0, 10: 2.0})
    finish_run(store, OTHER, {0: 4.0, 10: math.nan})
    made = pair(store, ONE, OTHER, metric=Metric(maximize=maximize))
    assert made.difference is None
    assert "The difference in eval loss is unknown: one of the runs ended with a NaN.\n" in shown(made)


def test_no_difference_is_shown_across_held_out_rows(store: Store) -> None:
    finish_run(store, ONE, {9: 2.0}, eval_fingerprint="a")
    finish_run(store, OTHER, {9: 1.0}, eval_fingerprint="b")
    made = pair(store, ONE, OTHER)
    assert (made.comparable, made.difference) == (False, None)
    assert "evaluated on different or unknown held-out rows" in shown(made)


def test_a_run_that_has_not_begun_has_no_curve_and_no_difference(finished: Store) -> None:
    later = run(SETTINGS | {"learning_rate": 3e-4})
    text = shown(pair(finished, ONE, later))
    assert "•" in text
    assert "The difference in eval loss is not known yet" in text or "different or unknown held-out rows" in text


def test_of_a_run_that_has_not_finished_the_step_of_its_value_is_shown(finished: Store) -> None:
    lost = run(SETTINGS | {"learning_rate": 3e-4})
    log_losses(finished, lost, {0: 4.0, 5: 2.5})
    log_losses(finished, lost, {7: 2.6}, "loss")
    begin_attempt(finished, StepKind.TRAIN, lost.key).train_state.write_text('{"max_steps": 10}')
    text = shown(pair(finished, ONE, lost))
    assert f"eval loss: {lost.key} is worse by 0.5000\n{lost.key} has not finished (lost): its eval loss is " in text
    assert "is that of step 5 of 10.\n" in text
    assert "that of step" not in shown(pair(finished, ONE, OTHER))


def test_a_metric_that_neither_has_logged_is_refused_with_the_existing_ones(finished: Store) -> None:
    with pytest.raises(
        SweepError, match=r"None of these runs has logged evalloss\. Did you mean eval_loss\? There are: eval_loss\."
    ):
        pair(finished, ONE, OTHER, metric=Metric("evalloss"))


def test_curves_differ_in_their_marks_and_where_they_meet(finished: Store) -> None:
    lines = overlay([{0: 4.0, 10: 2.0}, {0: 4.0, 10: 1.0}], width=21, height=7)
    assert lines[0].partition("┤")[2].startswith("◉")
    assert lines[0].split()[0] == "4"
    assert lines[6].split()[0] == "1"
    assert lines[6].endswith("○")
    assert sum("•" in line for line in lines) == 5, "from 4 down to 2"
    assert lines[-1].split() == ["0", "step", "10"]
    assert max(map(len, lines)) <= 21 + len(lines[0].split("┤")[0]) + 1


def test_a_curve_has_a_mark_in_every_column_between_its_ends() -> None:
    lines = overlay([{0: 1.0, 100: 2.0}], width=30, height=10)[:10]
    assert all(any(line.partition("┤")[2][column : column + 1] == "•" for line in lines) for column in range(30))


@pytest.mark.parametrize("points", [{}, {0: math.nan}, {3: math.inf, 4: -math.inf}])
def test_nothing_to_draw_gives_no_line(points: dict[int, float]) -> None:
    assert overlay([points, {}]) == []


@pytest.mark.parametrize("points", [{5: 1.0}, {0: 2.0, 9: 2.0}, {0: 1.0, 5: math.nan, 9: 2.0}])
def test_a_point_a_level_line_and_a_gap_can_be_drawn(points: dict[int, float]) -> None:
    assert any("•" in line for line in overlay([points]))
