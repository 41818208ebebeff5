import math

import pytest

from runner.compare.flags import flags_of
from runner.compare.metrics import Curves


def curves(evals: list[float], losses: list[float] | None = None) -> Curves:
    """Evaluated at each tenth step from the first on; a step in between logs the loss of its ten steps."""
    trained = {step: loss for part, loss in enumerate(losses or []) for step in range(10 * part + 1, 10 * part + 11)}
    return Curves({"eval_loss": {10 * place: value for place, value in enumerate(evals)}, "loss": trained})


@pytest.mark.parametrize(
    ("evals", "losses", "flags"),
    [
        ([2.0, 1.5, 1.0], [1.8, 1.2], ()),
        ([2.0, 1.5, math.nan], [1.8, 1.2], ("diverged",)),
        ([2.0, 1.5, 1.0], [1.8, math.inf], ("diverged",)),
        ([2.0, 2.5, 3.1], [1.8, 1.2], ("diverged",)),
        ([2.0, 3.1, 2.5], [1.8, 1.2], ()),
        ([2.0, 1.99, 1.985], [1.9, 1.9], ("flat",)),
        ([2.0, 1.97, 1.99], [1.9, 1.9], ()),
        ([2.0, 1.0, 1.1, 1.2], [1.5, 1.0, 0.5], ("overfits",)),
        ([2.0, 1.0, 1.1, 1.05], [1.5, 1.0, 0.5], ()),
        ([2.0, 1.0, 1.1, 1.2], [1.5, 1.0, 1.1], ()),
        ([2.0, 1.0, 1.1, 1.2], [], ()),
        ([2.0, 2.1, 2.2], [1.5, 1.0], ("overfits",)),
        ([2.0], [], ()),
        ([], [], ()),
    ],
)
def test_losses_are_flagged_for_what_they_show(evals: list[float], losses: list[float], flags: tuple[str, ...]) -> None:
    assert flags_of(curves(evals, losses), ended=True) == flags


def test_a_run_that_goes_on_is_not_flat_yet() -> None:
    assert flags_of(curves([2.0, 2.0, 2.0]), ended=False) == ()


def test_a_run_that_its_worker_stopped_for_a_nan_has_diverged_whatever_it_logged() -> None:
    assert flags_of(curves([2.0, 1.0]), ended=False, nan=True) == ("diverged",)


def test_without_evaluations_the_training_loss_is_judged() -> None:
    assert flags_of(Curves({"loss": {1: 2.0, 9: 3.5}}), ended=True) == ("diverged",)
    assert flags_of(Curves({"loss": {1: 2.0, 9: 2.0}}), ended=True) == ("flat",)
