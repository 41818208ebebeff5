"""The points of search=tpe, in their file."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from runner.search.space import Axis, Interval, Point
from runner.search.tpe import DrawnPoint, Study

RATE = Axis(("learning_rate",), interval=Interval(1e-5, 1e-1, log=True))
RANK = Axis(("lora_r",), (("8",), ("16",), ("64",)))
OPTIMIZER = Axis(("optimizer",), (("adamw_torch",), ("lion",)))
AXES = (RATE, RANK, OPTIMIZER)


def study(file: Path, *, write: bool = True, seed: int = 0) -> Study:
    return Study(file, AXES, seed, 30, write=write)


def loss(point: Point) -> float:
    """The best rate is 1e-3, and the other optimizer is worse."""
    return abs(math.log10(float(point[0][0])) + 3) + (point[2] == ("lion",))


def advance(one: Study, many: int) -> list[DrawnPoint]:
    drawn = []
    for _ in range(many):
        drawn.append(one.ask())
        one.tell(drawn[-1], loss(drawn[-1].point))
    return drawn


def test_what_is_known_is_in_the_file_so_that_nothing_is_lost_or_drawn_again(tmp_path: Path) -> None:
    undisturbed = advance(study(tmp_path / "one"), 12)
    disturbed = [one for _ in range(12) for one in advance(study(tmp_path / "other"), 1)]
    assert disturbed == undisturbed
    assert study(tmp_path / "other").results() == {one.point: loss(one.point) for one in undisturbed}


def test_a_point_without_a_result_is_open_until_it_has_one(tmp_path: Path) -> None:
    drawn = study(tmp_path / "file").ask()
    assert study(tmp_path / "file").open() == [drawn]
    study(tmp_path / "file").tell(drawn, 1.0)
    assert study(tmp_path / "file").open() == []


def test_wherever_writing_was_cut_off_the_file_can_be_read_and_no_result_is_lost(tmp_path: Path) -> None:
    file = tmp_path / "file"
    begun = study(file)
    advance(begun, 3)
    results = len(file.read_bytes())
    begun.ask()
    content = file.read_bytes()
    for end in range(results, len(content), 40):
        file.write_bytes(content[:end])
        again = study(file)
        assert len(again.results()) == 3
        assert len(again.open()) <= 1
        again.tell(again.ask(), 1.0)
        assert len(study(file).results()) == 4


def test_a_plan_draws_what_a_launch_would_draw_and_writes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "file"
    advance(study(file), 2)
    before = file.read_bytes()
    planned = advance(study(file, write=False), 3)
    assert file.read_bytes() == before
    assert advance(study(file), 3) == planned


def test_the_seed_decides_which_points_are_drawn(tmp_path: Path) -> None:
    assert advance(study(tmp_path / "one"), 3) != advance(study(tmp_path / "other", seed=1), 3)


def test_failed_diverged_forbidden_and_repeated_points_are_distinguished(tmp_path: Path) -> None:
    one = study(tmp_path / "file")
    failed, diverged, forbidden, repeated = (one.ask() for _ in range(4))
    one.tell(failed, None)
    one.tell(diverged, math.inf)
    one.forbid(forbidden)
    one.forget(repeated)
    again = study(tmp_path / "file")
    assert again.results() == {failed.point: None, diverged.point: math.inf}
    assert again.forbidden() == {forbidden.point}
    assert again.open() == []


def test_points_come_closer_to_the_best_and_keep_away_from_what_is_forbidden(tmp_path: Path) -> None:
    one = study(tmp_path / "file")
    forbidden = 0
    while len(one.results()) < 30:
        drawn = one.ask()
        if drawn.point[1] == ("64",):
            one.forbid(drawn)
            forbidden += 1
        else:
            one.tell(drawn, loss(drawn.point))
    first, last = list(one.results().values())[:10], list(one.results().values())[-10:]
    assert sum(value or 0 for value in last) < 0.7 * sum(value or 0 for value in first)
    assert forbidden < 15


@pytest.mark.parametrize("axis", [RATE, Axis(("lora_r",), interval=Interval(4, 64, log=True, integer=True))])
def test_a_value_of_an_interval_is_within_its_ends_as_it_is_written(tmp_path: Path, axis: Axis) -> None:
    one = Study(tmp_path / "file", (axis,), 0, 30)
    assert axis.interval is not None
    for _ in range(20):
        ((text,),) = one.ask().point
        assert axis.interval.low <= float(text) <= axis.interval.high
        assert not axis.interval.integer or text.isdigit()
