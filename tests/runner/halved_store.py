"""A store that looks as if a search with rungs had run in it, with every way in which a run can leave a rung."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass

from modal_app.halving.choose import is_audited
from modal_app.halving.entries import TERMS, FileEntries, entries_folder
from modal_app.halving.halve import Answer, ask, look, note_stop
from modal_app.halving.snapshot import Reading, Terms
from modal_app.store.layout import Store
from modal_app.store.rungs import Rungs
from modal_app.store.step import Outcome, OutcomeStatus, StepKind, write_atomically
from runner.types import Gpu, Plan, Run
from tests.runner.builders import begin_attempt, finish, open_sweep, run

STEPS, FRACTIONS, ETA = 60, (0.2, 0.6), 3
RUNGS = Rungs("", FRACTIONS, ETA)
OWN = "5e8d"
"""The hash in the search's id, after the sweep's id."""


@dataclass(frozen=True)
class HalvedSweep:
    plan: Plan
    winner: Run
    """The only run that finished as one of the best."""
    stopped: Run
    """Stopped at rung 1, which it reached second."""
    promoted: Run
    """Stopped at rung 1 until others had come; then it stopped at rung 2."""
    audited: Run
    """Among the worst, but finished."""
    diverged: Run
    """Stopped at rung 1, without a loss."""

    @property
    def id(self) -> str:
        return self.plan.sweep


def halved_sweep(store: Store, gpu: Gpu | None = None, *, audited: float = 1.1) -> HalvedSweep:
    """A search of six runs that have all ended. `audited`: the final loss of the run that goes on for the audit."""
    plain = _rates(audited=False, gpu=gpu)
    winner, promoted, stopped, other, diverged = itertools.islice(plain, 5)
    last = next(_rates(audited=True, gpu=gpu))
    runs = [stopped, promoted, winner, other, diverged, last]
    planned = open_sweep(store, runs, "halved")
    finish(store, StepKind.PREPROCESS, winner.data_key, manifest={"eval_fingerprint": "rows", "rows": 7})
    entries = entries_of(store, planned.sweep)
    rates = {one.key: float(one.experiment.axolotl["learning_rate"]) for one in runs}
    terms = Terms(rates, FRACTIONS, ETA, margin=False, keep_rate=False)
    entries.put(TERMS, terms.to_json())
    first = (stopped, 1.3), (promoted, 1.2), (winner, 1.0), (other, 1.4), (diverged, None), (last, 1.5)
    for one, reached in first:
        _train_to(store, entries, one, 1, reached)
    assert set(look(entries)) == {promoted.key}
    for one, reached in ((last, 1.25), (promoted, 0.9), (winner, 0.8)):
        _train_to(store, entries, one, 2, reached)
    _finish(store, winner, 0.6)
    _finish(store, last, audited)
    return HalvedSweep(planned, winner, stopped, promoted, last, diverged)


def best_run_first(store: Store) -> tuple[str, Run]:
    """A search of six runs with one rung. The best one comes there before all others, when it goes on for the audit
    alone. Returns the sweep, and this run."""
    best, others = next(_rates(audited=True, gpu=None)), [*itertools.islice(_rates(audited=False, gpu=None), 5)]
    planned = open_sweep(store, [best, *others], "early")
    finish(store, StepKind.PREPROCESS, best.data_key, manifest={"eval_fingerprint": "rows", "rows": 7})
    entries = entries_of(store, planned.sweep)
    rates = {one.key: float(one.experiment.axolotl["learning_rate"]) for one in (best, *others)}
    entries.put(TERMS, Terms(rates, FRACTIONS[:1], ETA, margin=False, keep_rate=False).to_json())
    for number, one in enumerate((best, *others)):
        _train_to(store, entries, one, 1, 1.0 + number / 10)
    assert set(look(entries)) == {others[0].key}, "the second of six"
    for one, final in ((best, 0.5), (others[0], 0.6)):
        _finish(store, one, final)
    return planned.sweep, best


def entries_of(store: Store, sweep: str) -> FileEntries:
    return FileEntries(entries_folder(store, f"{sweep}/{OWN}"))


def _rates(*, audited: bool, gpu: Gpu | None) -> Iterator[Run]:
    for number in itertools.count(1):
        rate = round(number * 1e-4, 6)
        rank = 16 if number % 2 else 8
        words = [f"learning_rate={rate}", f"lora_r={rank}"]
        one = run({"learning_rate": rate, "lora_r": rank}, gpu=gpu, overrides=words)
        if is_audited(one.key) is audited:
            yield one


def _train_to(store: Store, entries: FileEntries, one: Run, rung: int, loss: float | None) -> None:
    """What a run leaves at a rung, and what it leaves if it stops there."""
    step = RUNGS.steps(STEPS)[rung - 1]
    _log(
        store, one, RUNGS.steps(STEPS)[rung - 2] if rung > 1 else 0, step - 2, math.inf if loss is None else loss + 0.1
    )
    answer = ask(entries, one.key, rung, Reading(loss, STEPS, "rows"))
    if answer.goes_on:
        return
    attempt = begin_attempt(store, StepKind.TRAIN, one.key)
    _end(store, one, answer, rung, step, attempt.number)
    note_stop(entries, one.key, rung)


def _end(store: Store, one: Run, answer: Answer, rung: int, step: int, number: int) -> None:
    attempt = store.folder(StepKind.TRAIN, one.key).attempt(number)
    facts = {
        "rung": rung, "rungs": len(FRACTIONS), "step": step, "max_steps": STEPS,
        "place": answer.place, "of": answer.of, "why": "", "eval_fingerprint": "rows",
    }  # fmt: skip
    _state(store, one, number, step, since=RUNGS.steps(STEPS)[rung - 2] if number > 1 else 0)
    write_atomically(
        attempt.result, Outcome(OutcomeStatus.AT_RUNG, number, 1000.0, 1000.0 + step, facts=facts).to_json()
    )


def _finish(store: Store, one: Run, loss: float) -> None:
    _log(store, one, 36, STEPS, loss)
    attempt = begin_attempt(store, StepKind.TRAIN, one.key)
    _state(store, one, attempt.number, STEPS)
    facts = {"step": STEPS, "max_steps": STEPS, "eval_fingerprint": "rows"}
    outcome = Outcome(OutcomeStatus.SUCCEEDED, attempt.number, 1000.0, 1000.0 + STEPS, facts=facts)
    write_atomically(store.folder(StepKind.TRAIN, one.key).done, outcome.to_json())
    write_atomically(attempt.result, outcome.to_json())


def _state(store: Store, one: Run, number: int, step: int, since: int = 0) -> None:
    phases = {"train": 0.5 * (step - since)}
    state = {"global_step": step, "max_steps": STEPS, "resumed_from": since, "phases": phases}
    write_atomically(store.folder(StepKind.TRAIN, one.key).attempt(number).train_state, json.dumps(state))


def _log(store: Store, one: Run, after: int, until: int, last: float) -> None:
    """Losses from 2.0 down to `last`, with an evaluation at every second step."""
    folder = store.folder(StepKind.TRAIN, one.key)
    folder.path.mkdir(parents=True, exist_ok=True)
    with folder.metrics.open("a", encoding="utf-8") as file:
        for step in range(after + 1 if after else 0, until + 1):
            value = round(2.0 + (min(last, 9.0) - 2.0) * step / until, 6)
            line = {"step": step, "attempt": 1, "time": 1000.0 + step, "seconds": 0.5 * step}
            file.write(json.dumps({**line, "loss": value, "tokens": 10 * step}) + "\n")
            if step % 2 == 0:
                file.write(json.dumps({**line, "eval_loss": value}) + "\n")
