"""One store with its dataset, and one preloaded trainer, for all slow tests of the worker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modal_app.store.layout import Store
from modal_app.store.step import Step
from runner.environment import trainer_environment
from tests.modal_app.steps import Warm, lines, make_store, outcome, preprocess_step, train_step

BEST: dict[str, Any] = {
    "load_best_model_at_end": True,
    "eval_steps": 5,
    "save_steps": 5,
    "learning_rate": 0.035,
    "adam_beta1": 0.5,
    "lr_scheduler": "constant_with_warmup",
    "warmup_steps": 15,
}
"""Its losses at steps 5, 10 and 15 are 1.7, 1.3 and 5.0. With a rate of 0.03 or 0.04, step 10 is the best by 0.3, too,
and the loss of step 15 is above 3.5."""


@pytest.fixture(scope="session")
def trainer() -> Path:
    """The trainer's python. If it is missing, the tests fail with a message that says what to do."""
    return trainer_environment.find()


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("modal_app") / "store")


@pytest.fixture(scope="session")
def warm(trainer: Path, store: Store) -> Iterator[Warm]:
    """A preloaded trainer over a store in which the dataset `data` is prepared."""
    warm = Warm.start(trainer, store)
    assert warm.run(preprocess_step()) == 0
    yield warm
    warm.close()


@pytest.fixture(scope="session")
def plain(warm: Warm, store: Store) -> Step:
    """A finished run of a fork."""
    step = train_step("plain")
    assert warm.run(step) == 0
    return step


@pytest.fixture(scope="session")
def plain_ranks(warm: Warm, store: Store) -> Step:
    """The same on two ranks."""
    step = train_step("plain-ranks", processes=2)
    assert warm.run(step) == 0
    return step


@pytest.fixture(scope="session")
def overshot(warm: Warm, store: Store) -> Step:
    """A run that stores its best weights, those of step 10: its learning rate rises so high that it then diverges."""
    step = train_step("overshot", **BEST)
    assert warm.run(step) == 0, outcome(store, step).message
    losses = {line["step"]: line["eval_loss"] for line in lines(store, step) if "eval_loss" in line}
    assert min(losses, key=lambda number: losses[number]) == 10, losses
    assert losses[15] > 1.5 * losses[0], f"it has not diverged: {losses}"
    return step
