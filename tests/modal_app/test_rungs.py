"""Runs of the tiny model at the rungs of a search: they stop, go on, and lose nothing."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from modal_app.halving.entries import TERMS, FileEntries, entries_folder, go_of, loss_of
from modal_app.halving.margin import GROUPS
from modal_app.halving.snapshot import Reading, Terms, Why
from modal_app.store import checkpoints
from modal_app.store.layout import Store
from modal_app.store.rungs import Rungs
from modal_app.store.state import read_outcome
from modal_app.store.step import OutcomeStatus, Step, StepKind
from tests.modal_app.rows import read_rows
from tests.modal_app.steps import Warm, lines, outcome, train_step

pytestmark = pytest.mark.slow
FRACTIONS = (0.2, 0.5)
"""Of 20 steps: 4, where nothing else is done, and 10, where the config evaluates."""


def searched(step: Step, store: Store, fractions: tuple[float, ...] = FRACTIONS) -> tuple[Step, FileEntries]:
    """The step in a search of its own, whose other member never reaches a rung, and its entries."""
    rungs = Rungs(f"sweep/{step.key}", fractions, eta=3, audit=False)
    entries = FileEntries(entries_folder(store, rungs.search))
    entries.put(TERMS, Terms({step.key: 1e-3, "absent": 1e-3}, fractions, 3, audit=False).to_json())
    return replace(step, rungs=rungs), entries


def let_go(entries: FileEntries, step: Step, rung: int) -> None:
    entries.put(go_of(rung, step.key), {"why": Why.TOP})


def left(store: Store, step: Step) -> tuple[Any, ...]:
    """Everything that a run leaves, except for times: its logged values (of a repeated step, the last), its adapter and
    its rows."""
    folder = store.folder(StepKind.TRAIN, step.key)
    names = ("loss", "eval_loss", "grad_norm", "learning_rate", "tokens/total")
    logged = {(line["step"], name): line[name] for line in lines(store, step) for name in names if name in line}
    adapter = hashlib.sha256((folder.model / "adapter_model.safetensors").read_bytes()).hexdigest()
    rows = read_rows(folder.losses)
    return logged, adapter, rows.about, rows.nll.tolist()


def trained(store: Store, step: Step) -> list[int]:
    """The logged steps, in order."""
    return [line["step"] for line in lines(store, step) if "loss" in line]


def reading(entries: FileEntries, step: Step, rung: int) -> Reading:
    raw = entries.get(loss_of(rung, step.key))
    assert raw is not None
    return Reading.of(raw)


@pytest.fixture(scope="module")
def promoted(warm: Warm, store: Store) -> tuple[Step, FileEntries]:
    """It has stopped at both rungs, has asked again at the first without an answer, and has gone on each time."""
    step, entries = searched(train_step("promoted"), store)
    assert warm.run(step) == 4, outcome(store, step).message
    assert warm.run(step) == 4  # there is no entry that it goes on
    let_go(entries, step, 1)
    assert warm.run(step) == 4
    let_go(entries, step, 2)
    assert warm.run(step) == 0, outcome(store, step).message
    return step, entries


def test_a_run_that_is_asked_and_goes_on_is_the_undisturbed_one(warm: Warm, store: Store, plain: Step) -> None:
    step, entries = searched(train_step("goes-on"), store)
    let_go(entries, step, 1)
    let_go(entries, step, 2)
    assert warm.run(step) == 0, outcome(store, step).message
    assert left(store, step) == left(store, plain)
    assert len(store.folder(StepKind.TRAIN, step.key).attempts()) == 1


def test_a_run_that_has_stopped_and_was_promoted_is_the_undisturbed_one(
    store: Store, plain: Step, promoted: tuple[Step, FileEntries]
) -> None:
    step, _ = promoted
    assert left(store, step) == left(store, plain)
    assert outcome(store, step).facts["resumed_from"] == 10
    assert trained(store, step) == trained(store, plain)


def test_a_run_that_stops_says_where_and_leaves_a_checkpoint_of_that_step(
    store: Store, promoted: tuple[Step, FileEntries]
) -> None:
    step, _ = promoted
    folder = store.folder(StepKind.TRAIN, step.key)
    attempts = [read_outcome(one.result) for one in folder.attempts()]
    first, again, second, _ = [{**one.facts, "status": one.status} for one in attempts if one]
    told = {"search": "sweep/promoted", "rungs": 2, "max_steps": 20, "place": 1, "of": 1, "why": ""}
    at_first = {**told, "rung": 1, "step": 4, "status": OutcomeStatus.AT_RUNG}
    assert first.items() >= at_first.items()
    assert again.items() >= at_first.items()
    assert second.items() >= {**told, "rung": 2, "step": 10}.items()
    assert again["phases"].get("train", 0) < 1, "it has not trained to say so again"
    logs = [one.log.read_text() for one in folder.attempts()]
    assert [log.count("Running evaluation step") for log in logs] == [2, 1, 1, 1], "at 0 and 4, 4, 10, and 20"
    assert checkpoints.is_complete(folder.model / "checkpoint-10"), "which save_steps=7 does not save"


def test_a_reading_is_the_trainers_loss_and_what_the_rows_say(
    store: Store, plain: Step, promoted: tuple[Step, FileEntries]
) -> None:
    step, entries = promoted
    told = {line["step"]: line["eval_loss"] for line in lines(store, plain) if "eval_loss" in line}
    assert 4 not in told
    second = reading(entries, step, 2)
    assert second.loss == told[10]
    first, rows = reading(entries, step, 1), read_rows(store.folder(StepKind.TRAIN, plain.key).losses)
    for one in (first, second):
        assert len(one.tokens) == len(one.nll) == GROUPS
        assert sum(one.tokens) == rows.tokens.sum()
        assert (one.max_steps, one.eval_fingerprint) == (20, rows.about.eval_fingerprint)
        assert one.loss == pytest.approx(sum(one.nll) / sum(one.tokens), rel=0.1)
    assert first.tokens == second.tokens
    assert np.count_nonzero(first.tokens) > 10, "documents are spread over the groups"


def test_two_ranks_agree_to_go_on_and_to_stop_and_a_sweep_without_rungs_trains_them_to_the_end(
    warm: Warm, store: Store, plain_ranks: Step
) -> None:
    step, entries = searched(train_step("searched-ranks", processes=2), store)
    let_go(entries, step, 1)
    assert warm.run(step) == 4, outcome(store, step).message
    assert outcome(store, step).facts["rung"] == 2
    assert warm.run(replace(step, rungs=None)) == 0, outcome(store, step).message
    assert outcome(store, step).facts["resumed_from"] == 10
    assert left(store, step) == left(store, plain_ranks)


def test_a_run_that_diverges_stops_at_once_and_keeps_its_best_weights(warm: Warm, store: Store, overshot: Step) -> None:
    """The best step is at an evaluation before a rung: the rate is so high that the loss rises again."""
    step, entries = searched(replace(overshot, key="diverges"), store, (0.2, 0.95))
    let_go(entries, step, 1)
    assert warm.run(step) == 4, outcome(store, step).message
    facts = outcome(store, step).facts
    assert (facts["rung"], facts["why"]) == (2, "diverged")
    assert facts["step"] in (5, 10, 15), "it has not waited for the rung"
    assert reading(entries, step, 1).loss is not None
    assert reading(entries, step, 2).loss is None
    assert warm.run(replace(step, rungs=None)) == 0, outcome(store, step).message
    assert left(store, step) == left(store, overshot)


def test_an_optimizer_that_evaluates_with_other_weights_than_it_trains_goes_on_with_the_same(
    warm: Warm, store: Store
) -> None:
    """It computes one set of weights from the other, which rounds."""
    changes: dict[str, Any] = {
        "optimizer": "schedule_free_adamw",
        "lr_scheduler": "constant",
        "max_steps": 10,
        "logging_steps": 1,
    }
    whole, step = train_step("schedule-free", **changes), train_step("schedule-free-asked", **changes)
    step, entries = searched(step, store)
    let_go(entries, step, 1)
    let_go(entries, step, 2)
    for one in (whole, step):
        assert warm.run(one) == 0, outcome(store, one).message
    assert left(store, step) == left(store, whole)
