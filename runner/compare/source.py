"""A store -> the facts of each run of a sweep, from which rows are made. Only reads."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from modal_app.cloud.meter import ContainerRecord
from modal_app.store.facts import DataManifest, TrainFacts, TrainState
from modal_app.store.layout import Attempt, Store
from modal_app.store.smaller_batch import BATCH, batch_text
from modal_app.store.state import StepState, observe, read_outcome
from modal_app.store.step import FailureReason, Outcome, StepKind
from runner.compare.flags import not_finite
from runner.compare.measured import Measurement, is_of_a_task, measured_of
from runner.compare.metrics import Curves, read_curves
from runner.compare.out_of_memory import advice_lines
from runner.compare.params import flat
from runner.cost.prices import Rates
from runner.cost.receipt import Receipt, launches, receipt_of
from runner.cost.run_memory import RESERVED
from runner.cost.spent import allocated, containers, facts_of, requested_gpu, run_bill, sweep_rates
from runner.store.ledger import Ledger, SweepRun
from runner.store.run_config import read_identity
from runner.store.run_state import RunStatus, Unbegun, run_state, unbegun
from runner.store.searches import RungReached, reached_by_run, searches_of


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What a source knows of one run. A row is made of this alone, so all sources look the same."""

    key: str
    data_key: str
    sweeps: tuple[str, ...]
    overrides: tuple[str, ...]
    config: Mapping[str, Any]
    """Axolotl's config, with `gpu` and `data`: one level deep, dotted names."""
    curves: Curves
    status: RunStatus
    reason: FailureReason | None
    """Why the run has failed, stopped or was lost."""
    message: str
    log: str | None
    store: str | None
    folder: str | None
    """The log, the store and the folder are null if the source is not a store."""
    eval_fingerprint: str | None
    attempts: int | None = 0
    """Null if unknown."""
    max_steps: int | None = None
    seconds: float | None = None
    train_seconds: float | None = None
    gpu: str | None = None
    paid_seconds: float | None = None
    dollars: float | None = None
    peak_memory_gib: float | None = None
    record: Mapping[str, Any] = field(default_factory=dict)
    measured: Mapping[str, Measurement] = field(default_factory=dict)
    """What `axosweep eval` has measured, by name."""
    started_at: float | None = None
    """Unix seconds, of its last attempt."""
    ended_at: float | None = None
    startup_seconds: float = 0.0
    """Of its last attempt, before its first step."""
    resumed_from: int = 0
    """The step that its last attempt began with."""
    rung: int = 0
    """The rung at which it has stopped; 0 otherwise."""
    rungs: tuple[RungReached, ...] = ()
    """What it has reached at each rung of its search."""
    healed: str | None = None
    """How its batch differs from the requested one, since it was out of memory."""
    advice: tuple[str, ...] = ()
    """Sentences and a command: what would have fitted, for a run that was out of memory on a GPU."""
    receipt: Receipt | None = None
    """What its seconds were used for; None before its first attempt."""

    def final(self, name: str) -> float | None:
        """The last value that training logged, or otherwise the value that was measured later."""
        logged = self.curves.final(name)
        later = self.measured.get(name)
        return later.value if logged is None and later is not None else logged

    @property
    def had_nan(self) -> bool:
        """Whether a loss was ever NaN or infinite, logged or as the reason why its worker stopped it."""
        return self.reason is FailureReason.NAN or not_finite(self.curves)

    def judged_by(self, name: str) -> str | None:
        """What identifies a metric's evaluation data: held-out rows, or the questions of a task. None if unknown."""
        if is_of_a_task(name):
            later = self.measured.get(name)
            return later.judged_by if later else None
        return self.eval_fingerprint


def facts_of_sweep(store: Store, sweep: str, only: Collection[str] | None = None) -> list[RunFacts]:
    """The facts of every run of a sweep in the order of the request, or only of the runs with these keys. Raises
    SweepError when there is no such sweep."""
    ledger = Ledger(store, sweep)
    records = ledger.records()
    runs, lost, launched = ledger.plan().runs, unbegun(records), launches(records)
    rates = sweep_rates(store, sweep, [run.key for run in runs])
    reached = reached_by_run(searches_of(store, sweep))
    facts = [_facts(store, sweep, run, lost, rates, launched) for run in runs if only is None or run.key in only]
    return [replace(one, rungs=reached.get(one.key, ())) for one in facts] if reached else facts


def once_each(facts: Iterable[RunFacts]) -> list[RunFacts]:
    """The facts without repetition: a run of several sweeps appears once, with all of its sweeps."""
    found: dict[tuple[str | None, str], RunFacts] = {}
    for one in facts:
        before = found.get((one.store, one.key))
        sweeps = (*(before.sweeps if before else ()), *one.sweeps)
        found[one.store, one.key] = replace(before or one, sweeps=tuple(dict.fromkeys(sweeps)))
    return list(found.values())


def flat_run(store: Store, key: str) -> dict[str, Any]:
    """The config of an earlier run, one level deep; empty when it is not stored."""
    identity = read_identity(store.folder(StepKind.TRAIN, key).identity)
    return flat(identity.get("axolotl", {}), identity.get("gpu", {}), identity.get("data", {}), identity.get("from"))


def _facts(
    store: Store, sweep: str, run: SweepRun, lost: Unbegun, rates: Rates | None, launched: Sequence[float]
) -> RunFacts:
    folder, config = store.folder(StepKind.TRAIN, run.key), flat_run(store, run.key)
    state = observe(store, StepKind.TRAIN, run.key)
    outcome, curves, attempts = state.outcome, read_curves(folder.metrics), folder.attempts()
    train_states = [TrainState.read(attempt.train_state) for attempt in attempts]
    derived = run_state(store, run, state, lost)
    rented = containers(folder)
    cost = run_bill(store, run.key, rented, rates) if rented and rates else None
    gpu = requested_gpu(store, run.key) if rented else None
    return RunFacts(
        key=run.key,
        data_key=run.data_key,
        sweeps=(sweep,),
        overrides=run.overrides,
        config=config,
        curves=curves,
        status=derived.status,
        reason=derived.reason,
        message=derived.message,
        log=derived.log,
        store=str(store.root),
        folder=str(folder.path),
        eval_fingerprint=_eval_fingerprint(store, run, state),
        attempts=len(attempts),
        max_steps=train_states[-1].max_steps if train_states else None,
        seconds=_seconds(outcome.seconds, attempts[:-1], train_states) if outcome else None,
        train_seconds=_train_seconds(train_states),
        gpu=allocated(rented),
        paid_seconds=sum(one.seconds for one in rented) if rented else None,
        dollars=cost.dollars if cost else None,
        peak_memory_gib=_peak_memory(curves, rented),
        record=dict(outcome.facts if outcome else {}) | facts_of(rented),
        measured=measured_of(store, run.key),
        started_at=state.started_at,
        ended_at=outcome.finished_at if outcome else None,
        startup_seconds=train_states[-1].startup_seconds if train_states else 0.0,
        resumed_from=train_states[-1].resumed_from if train_states else 0,
        rung=derived.rung,
        healed=_healed(config, outcome),
        advice=advice_lines(store, run.key, outcome, rates) if derived.reason is FailureReason.OOM else (),
        receipt=receipt_of(folder, launched, rates, gpu, running=derived.status is RunStatus.RUNNING),
    )


def _healed(config: Mapping[str, Any], outcome: Outcome | None) -> str | None:
    smaller = TrainFacts.of(outcome.facts).smaller_batch if outcome else {}
    return batch_text(config.get(BATCH), smaller[BATCH]) if BATCH in smaller else None


def _seconds(last: float, earlier: Sequence[Attempt], train_states: Sequence[TrainState]) -> float:
    """The seconds of all attempts, like the optimizer steps. An attempt that was killed has left no result, only the
    seconds of its phases."""
    total = last
    for attempt, state in zip(earlier, train_states, strict=False):
        outcome = read_outcome(attempt.result)
        total += outcome.seconds if outcome else sum(state.phases.values())
    return total


def _train_seconds(train_states: Sequence[TrainState]) -> float | None:
    """The seconds of the optimizer steps in all attempts, including steps that were repeated after a kill."""
    seconds = [one.step_seconds for one in train_states if one.step_seconds is not None]
    return round(sum(seconds), 3) if seconds else None


def _peak_memory(curves: Curves, rented: Sequence[ContainerRecord]) -> float | None:
    """The peak on one GPU: the most that the driver showed, or that Axolotl logged as reserved."""
    seen = [card.peak_mib / 1024 for one in rented for card in one.cards if card.peak_mib]
    logged = curves.most(RESERVED)
    return max([*seen, *([logged] if logged else [])], default=None)


def _eval_fingerprint(store: Store, run: SweepRun, state: StepState) -> str | None:
    """Identifies the run's held-out rows: from its own record, or from its dataset's while it has none."""
    facts = TrainFacts.of(state.outcome.facts if state.outcome else {})
    return facts.eval_fingerprint or DataManifest.read(store.manifest(run.data_key)).eval_fingerprint
