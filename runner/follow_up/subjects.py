"""Finds the finished runs that a name means, and makes their follow-up steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modal_app.store.layout import Store, after_key
from modal_app.store.state import Phase, is_done, observe
from modal_app.store.step import Device, Step, StepKind
from modal_app.store.trained_weights import TrainedWeights, weights_left_by
from runner.compare.best import best_run
from runner.compare.params import label
from runner.compare.ranking import Row, compare_sweep
from runner.environment import trainer_environment
from runner.errors import SweepError
from runner.executors.refresh import has_succeeded, look_again
from runner.keys.identity import short_hash
from runner.store.finding import runs_in
from runner.store.ledger import Ledger, SweepRun, sweep_ids
from runner.store.run_config import read_config, read_identity
from runner.store.run_state import reason_of, rung_of, status_of, status_text
from runner.store.stores import is_mirror
from runner.types import PlannedStep

OWN_LENGTH = 12
VERSIONS = {StepKind.MERGE: 1, StepKind.INFER: 2, StepKind.EVALUATE: 1}
"""Versions of our own code, part of every step's key: raised when the same request would give another result. Version 1
of INFER cut some answers short."""
HELD_OUT_VERSION = 2
"""In addition, of evaluations on held-out rows, which have no options. Version 1 recorded no per-row losses, so
a store that has such an evaluation gets them from another."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A finished run that gets a follow-up step."""

    store: Store
    sweep: str
    """A sweep that has it."""
    key: str
    data_key: str
    config: Mapping[str, Any]
    """The keyed Axolotl config: local inputs as `inputs/...`, below the store's root."""
    identity: Mapping[str, Any] = field(default_factory=dict)
    """run.json"""
    name: str = ""
    """What distinguishes it from the other runs of its sweep: `lora=r8 learning_rate=0.004`."""

    @property
    def leaves(self) -> TrainedWeights:
        """What it has trained: an adapter, or a complete model."""
        return weights_left_by(self.config)

    @property
    def adapter(self) -> str | None:
        """The method: lora, qlora, ...; None for a full fine-tune. With ReLoRA, `leaves` is a complete model."""
        kind = self.config.get("adapter")
        return None if kind is None else str(kind)

    @property
    def gpu(self) -> str:
        """The kind of GPU that was requested for it; cpu if none was."""
        return str(self.identity.get("gpu", {}).get("type", "cpu"))

    @property
    def device(self) -> Device:
        return Device.CPU if self.gpu == "cpu" else Device.CUDA


def subjects(known: Sequence[Store], name: str | None, *, every: bool = False) -> list[Subject]:
    """The run with that key or beginning of a key; of a sweep, its best run or, with `every`, all succeeded runs in the
    order of their ranks. None means the newest sweep.

    Raises SweepError when nothing matches (with a suggestion), and for a run that has not succeeded.
    """
    store, runs, sweep = runs_in(known, name)
    if sweep is None:
        (run,) = runs
        _refuse_unfinished(store, run)
        sweep = _sweep_of(store, run)
        return [_subject(store, sweep, run, compare_sweep(store, sweep))]
    look_again(store, sweep, runs)
    rows = compare_sweep(store, sweep)
    if every:
        by_key = {run.key: run for run in runs if has_succeeded(store, run)}
        finished = [by_key[row.key] for row in rows if row.key in by_key]
        if not finished:
            raise SweepError(f"No run of {sweep} has finished yet; `axosweep status {sweep}` shows their progress.")
        return [_subject(store, sweep, run, rows) for run in finished]
    run = best_run(runs, rows)
    _refuse_unfinished(store, run)
    return [_subject(store, sweep, run, rows)]


def after_step(subject: Subject, kind: StepKind, options: Mapping[str, Any]) -> PlannedStep:
    """A follow-up step of a run. Its options are part of its key, so the same request is done only once."""
    own = _own_hash(subject, kind, {"options": options})
    return planned(subject, kind, after_key(subject.key, own), subject.key, options)


def base_step(subject: Subject, kind: StepKind, options: Mapping[str, Any], identity: Any) -> PlannedStep:
    """A step of the base model alone, shared by all runs with an equal `identity` of it."""
    own = _own_hash(subject, kind, {"base": identity, "options": options})
    return planned(subject, kind, after_key("", own), "", options)


def _own_hash(subject: Subject, kind: StepKind, question: Mapping[str, Any]) -> str:
    """It covers the versions of all the software that runs the step: the lock with the Python that it is installed for,
    and what the run's executor adds to it (packages, an image)."""
    on_modal = is_mirror(subject.store)
    lock = trainer_environment.lock_hash() if on_modal else trainer_environment.identity(None)
    trainer = [subject.identity.get("trainer_lock", lock), lock]
    on_held_out_rows = kind is StepKind.EVALUATE and not question["options"]
    version = [VERSIONS[kind], HELD_OUT_VERSION] if on_held_out_rows else VERSIONS[kind]
    return short_hash({**question, "trainer": trainer, "version": version}, OWN_LENGTH)


def planned(subject: Subject, kind: StepKind, key: str, run: str, options: Mapping[str, Any]) -> PlannedStep:
    step = Step(
        kind=kind,
        key=key,
        config=subject.config,
        data_key=subject.data_key,
        device=subject.device,
        base_model=str(subject.identity.get("axolotl", {}).get("base_model", "")),
        sweep=subject.sweep,
        run=run,
        options=options,
    )
    return PlannedStep(step, is_done(subject.store.folder(kind, key)))


def _subject(store: Store, sweep: str, run: SweepRun, rows: Sequence[Row]) -> Subject:
    folder = store.folder(StepKind.TRAIN, run.key)
    config = read_config(folder.config)
    if config is None:
        raise SweepError(f"{folder.config} is missing or cannot be read, so the run {run.key} cannot be used.")
    names = {row.key: label(row.params) for row in rows}
    return Subject(
        store, sweep, run.key, run.data_key, config, read_identity(folder.identity), names.get(run.key) or run.key
    )


def _sweep_of(store: Store, run: SweepRun) -> str:
    return next(sweep for sweep in sweep_ids(store) if run.key in {one.key for one in Ledger(store, sweep).plan().runs})


def _refuse_unfinished(store: Store, run: SweepRun) -> None:
    look_again(store, _sweep_of(store, run), [run])
    state = observe(store, StepKind.TRAIN, run.key)
    if state.phase is Phase.ABSENT and store.folder(StepKind.TRAIN, run.key).removed.exists():
        raise SweepError(f"The run {run.key} was removed. Launching its sweep again trains it again.")
    if state.phase is Phase.AT_RUNG:
        status = status_text(status_of(state), None, rung_of(state))
        raise SweepError(
            f"The run {run.key} has not finished: it is {status} of its search. To finish it, use `axosweep "
            f"resume {run.key}`."
        )
    if state.phase is not Phase.SUCCEEDED:
        status = status_text(status_of(state), reason_of(state))
        raise SweepError(
            f"The run {run.key} has not finished: it is {status}. Launching its sweep again resumes it; "
            f"`axosweep logs {run.key}` shows its progress."
        )
