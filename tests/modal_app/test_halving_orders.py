"""In whatever order runs come and launchers look, and whatever is killed, the same runs have gone on."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from modal_app.halving.choose import is_audited, who_goes_on
from modal_app.halving.snapshot import Snapshot
from tests.modal_app.halving_entries import of_terms, reading
from tests.modal_app.halving_world import Curve, Fate, World

RUNS = [f"{number:012x}" for number in range(40)]
PLAIN = [run for run in RUNS if not is_audited(run)]


def _curve(choice: random.Random, rungs: int) -> Curve:
    found: list[object] = []
    while len(found) < rungs and not (found and isinstance(found[-1], Fate)):
        nll = tuple(float(choice.randint(1, 6)) for _ in range(3))
        fate = choice.choices([None, Fate.DIVERGES, Fate.FAILS], [10, 1, 1])[0]
        found.append(fate or reading(sum(nll) / 12, tokens=(4, 4, 4), nll=nll))
    return found  # type: ignore[return-value]


def _world(seed: int, runs: list[str], eta: int, rungs: int, *, extras: bool) -> World:
    choice = random.Random(seed)
    fractions = tuple((rung + 1) / (rungs + 1) for rung in range(rungs))
    rates = {run: choice.choice([1e-4, 1e-3, 1e-2]) for run in runs}
    entries = of_terms(rates, fractions, eta, audit=extras, margin=extras, keep_rate=extras)
    return World(entries, {run: _curve(choice, rungs) for run in runs}, choice, choice.choice([1, 2, 3, len(runs)]))


def _is_healthy(curve: Curve) -> bool:
    return not any(isinstance(one, Fate) for one in curve)


def _check_at_rest(world: World) -> None:
    snapshot = Snapshot.of(world.entries.items())
    for rung in range(1, len(snapshot.terms.fractions) + 1):
        assert set(who_goes_on(snapshot, rung)) <= set(snapshot.gone.get(rung, {})), rung
    for run in world.curves:
        how = world.ended[run]
        assert not (isinstance(how, int) and snapshot.has_gone(how, run)), "it has the answer to go on, and has stopped"
        for rung in range(1, len(snapshot.terms.fractions) + 2):
            assert world.trained[run, rung] <= 1 + world.kills[run], "it was trained twice"
    if any(_is_healthy(curve) for curve in world.curves.values()):
        assert None in world.ended.values(), "no run has reached the end"


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32), number=st.integers(1, 14), eta=st.integers(2, 4), rungs=st.integers(1, 3),
    extras=st.booleans(), kills=st.sampled_from([0.0, 0.02, 0.1]), relaunches=st.sampled_from([0.0, 0.02]),
)  # fmt: skip
def test_at_the_end_every_run_among_the_best_has_gone_on_and_nothing_was_trained_twice(
    seed: int, number: int, eta: int, rungs: int, extras: bool, kills: float, relaunches: float
) -> None:
    world = _world(seed, RUNS[:number], eta, rungs, extras=extras)

    world.play(kills=kills, relaunches=relaunches)
    world.play(kills=0.0, relaunches=0.0)  # the same command line, once more

    _check_at_rest(world)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), number=st.integers(1, 12), eta=st.integers(2, 4))
def test_the_best_floor_of_n_over_eta_of_each_rung_have_gone_on(seed: int, number: int, eta: int) -> None:
    world = _world(seed, PLAIN[:number], eta, 2, extras=False)
    world.curves = {run: curve for run, curve in world.curves.items() if _is_healthy(curve)}
    world.entries = of_terms(dict.fromkeys(world.curves), eta=eta)

    world.play(kills=0.05, relaunches=0.02)
    world.play(kills=0.0, relaunches=0.0)

    gone = {run for run, how in world.ended.items() if how != 1}
    order = sorted(world.curves, key=lambda run: (world.curves[run][0].loss, run))  # type: ignore[union-attr]
    assert set(order[: len(order) // eta or 1]) <= gone
    order = sorted(gone, key=lambda run: (world.curves[run][1].loss, run))  # type: ignore[union-attr]
    assert set(order[: len(order) // eta or 1]) <= {run for run, how in world.ended.items() if how is None}
