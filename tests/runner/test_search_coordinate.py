"""search=coordinate chooses its points from the results alone."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from runner.search.coordinate import Role, candidates, most_points, next_turn, role, start
from runner.search.space import Axis, Interval, Point

RATE = Axis(("learning_rate",), (("1e-4",), ("3e-4",), ("1e-3",)))
RANK = Axis(("lora_r",), (("64",), ("8",), ("16",)))
BATCH = Axis(("micro_batch_size",), (("2",), ("8",), ("4",)))
SCHEDULE = Axis(("lr_scheduler",), (("cosine",), ("linear",)))


def searched(
    axes: tuple[Axis, ...], loss: Callable[[Point], float], known: dict[Point, float] | None = None
) -> list[list[Point]]:
    """The rounds of a search whose runs have these losses."""
    losses, rounds = dict(known or {}), []
    while (turn := next_turn(axes, losses)) is not None:
        rounds.append(list(turn.points))
        losses |= {point: loss(point) for point in turn.points}
    return rounds


def away_from(best: Point) -> Callable[[Point], float]:
    """How far a point is from the best one, in factors of its numbers."""

    def loss(point: Point) -> float:
        pairs = [(float(one[0]), float(other[0])) for one, other in zip(point, best, strict=True)]
        return sum(abs(math.log(one / other)) for one, other in pairs)

    return loss


def test_the_rate_comes_first_at_the_middle_rank_and_then_the_rank_at_that_rate() -> None:
    rounds = searched((RANK, RATE), away_from((("64",), ("3e-4",))))
    assert rounds == [
        [(("16",), ("1e-4",)), (("16",), ("3e-4",)), (("16",), ("1e-3",))],
        [(("8",), ("3e-4",)), (("64",), ("3e-4",))],
    ]


def test_a_group_whose_options_set_a_rank_is_the_rank_in_the_order_of_the_ranks() -> None:
    group = Axis(("lora",), (("r64",), ("r8",), ("r16",)), ranks={("r64",): 64, ("r8",): 8, ("r16",): 16})
    assert role(group) is Role.RANK
    assert candidates(group) == (("r8",), ("r16",), ("r64",))
    assert start((group,)) == (("r16",),)


def test_an_end_of_the_rate_is_extended_once_by_the_ratio_of_the_axis() -> None:
    assert searched((RATE,), away_from((("1",),)))[1:] == [[(("0.003333",),)]]
    assert searched((RATE,), away_from((("1e-9",),)))[1:] == [[(("3.333e-05",),)]]
    assert searched((RATE,), away_from((("3e-4",),)))[1:] == []


def test_a_further_rate_that_diverges_is_not_the_best() -> None:
    rounds = searched((RATE, RANK), lambda point: -float(point[0][0]) if float(point[0][0]) < 2e-3 else math.inf)
    assert {point[0] for point in rounds[2]} == {("1e-3",)}


def test_the_ends_of_an_interval_are_its_limits() -> None:
    rate = Axis(("learning_rate",), interval=Interval(1e-4, 1e-3, log=True))
    assert searched((rate,), away_from((("1",),))) == [[(("0.0001",),), (("0.0003162",),), (("0.001",),)]]
    ends = candidates(Axis(("learning_rate",), interval=Interval(1.00004e-4, 1.23456e-3, log=True)))
    assert (ends[0], ends[-1]) == (("0.000100004",), ("0.00123456",)), "four digits would be outside"


def test_a_wide_interval_of_rates_is_tried_at_no_more_than_five_values() -> None:
    values = candidates(Axis(("learning_rate",), interval=Interval(1e-6, 1e-1, log=True)))
    assert len(values) == 5
    assert (values[0], values[-1]) == (("1e-06",), ("0.1",))


def test_the_batch_takes_the_rate_along_by_the_square_root() -> None:
    rounds = searched((RATE, BATCH), lambda point: float(point[0][0] != "3e-4"))
    assert rounds[1] == [(("0.0002121",), ("2",)), (("0.0004243",), ("8",))]


def test_other_axes_come_last_each_at_the_best_values_so_far() -> None:
    rounds = searched((SCHEDULE, RANK, RATE), lambda point: float(point[1] != ("8",)) + float(point[2] != ("3e-4",)))
    assert rounds[-1] == [(("linear",), ("8",), ("3e-4",))]


def test_a_point_that_was_left_out_is_not_chosen() -> None:
    axes = (RANK, RATE)
    left_out: dict[Point, float] = {(("16",), ("1e-3",)): math.inf}
    rounds = searched(axes, away_from((("8",), ("1e-2",))), left_out)
    assert all(point not in left_out for several in rounds for point in several)
    assert rounds[1] == [(("8",), ("3e-4",)), (("64",), ("3e-4",))]


def test_without_any_result_the_search_still_ends() -> None:
    assert len(searched((RATE, RANK, BATCH), lambda _: math.inf)) == 3


_LISTS = {"learning_rate": RATE, "lora_r": RANK, "micro_batch_size": BATCH, "lr_scheduler": SCHEDULE}


@settings(max_examples=60, deadline=None)
@given(st.permutations(list(_LISTS.values())), st.integers(1, 4), st.integers(0, 2**16), st.data())
def test_an_interrupted_search_goes_on_with_the_points_of_an_undisturbed_one(
    axes: list[Axis], many: int, salt: int, data: st.DataObject
) -> None:
    chosen = tuple(axes[:many])

    def loss(point: Point) -> float:
        return zlib.crc32(repr((salt, point)).encode()) % 1000

    rounds = [point for several in searched(chosen, loss) for point in several]
    assert len(rounds) == len(set(rounds)) <= most_points(chosen)
    ended = data.draw(st.integers(0, len(rounds)))
    known = {point: loss(point) for point in rounds[:ended]}
    assert [point for several in searched(chosen, loss, known) for point in several] == rounds[ended:]
