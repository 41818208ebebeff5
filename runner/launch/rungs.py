"""Halving a sweep: which runs stop where, what is refused, and what is put before the first of them starts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from modal_app.halving.earlier import Known, readings_by_step
from modal_app.halving.ends import note_end, note_trained, rung_of_stop
from modal_app.halving.entries import TERMS, FileEntries, entries_folder, go_of
from modal_app.halving.snapshot import Terms
from modal_app.store import checkpoints
from modal_app.store.facts import DataManifest
from modal_app.store.layout import Store
from modal_app.store.own_data import own_data_of
from modal_app.store.read_json import read_json
from modal_app.store.rungs import Rungs, named
from modal_app.store.state import Phase, StepState, observe
from modal_app.store.step import Step, StepKind
from runner.errors import SweepError
from runner.keys.identity import short_hash
from runner.request import SearchChoice
from runner.types import Plan, PlannedRun, Run

HASH_LENGTH = 6
BATCH = ("micro_batch_size", "gradient_accumulation_steps")


def with_rungs(plan: Plan, search: SearchChoice, store: Store) -> Plan:
    """The plan whose runs stop at the rungs of a search. Raises SweepError for runs that cannot be compared there."""
    if not search.rungs:
        return plan
    if reason := next(_refusals(plan.runs, search, store), ""):
        raise SweepError(f"search.rungs={_listed(search.rungs)}: {reason}")
    terms = {"rungs": search.rungs, "eta": search.eta, "audit": search.audit}
    own = short_hash([terms, sorted(one.run.key for one in plan.runs)], HASH_LENGTH)
    rungs = Rungs(f"{plan.sweep}/{own}", search.rungs, search.eta, search.audit)
    known = readings_by_step(store, [one.run.key for one in plan.pending])
    runs = (one if one.done else _with_rungs(one, rungs, store, known.get(one.run.key, {})) for one in plan.runs)
    return replace(plan, runs=tuple(runs))


def _with_rungs(planned: PlannedRun, rungs: Rungs, store: Store, known: Known) -> PlannedRun:
    state = observe(store, StepKind.TRAIN, planned.run.key)
    rung = rung_of_stop(rungs, state.outcome, known) if state.phase is Phase.AT_RUNG else 0
    if rung and FileEntries(entries_folder(store, rungs.search)).get(go_of(rung, planned.run.key)):
        rung = 0
    return replace(planned, step=replace(planned.step, rungs=rungs), at_rung=rung)


def rungs_of(plan: Plan) -> Rungs | None:
    """Those of a plan's pending runs."""
    return next((one.step.rungs for one in plan.pending if one.step.rungs), None)


def uneven_rows_note(plan: Plan) -> str:
    """A note if runs that are compared at the same step have seen different numbers of rows by then; otherwise
    empty."""
    sizes = sorted({_batch_size(one.run) for one in plan.runs})
    if rungs_of(plan) is None or len(sizes) == 1:
        return ""
    return (
        f"at each rung, these runs are compared after the same number of steps, not of rows: a step has "
        f"{sizes[0]} to {sizes[-1]} rows ({' x '.join(BATCH)} x gpu.count). Runs with larger batches have seen more, "
        "so they are more likely to go on. To compare after equal rows, give each batch a sweep of its own."
    )


def put_terms(plan: Plan, store: Store) -> None:
    """Put the search's terms before the first run starts, and what is known of earlier runs at its rungs."""
    rungs = rungs_of(plan)
    if rungs is None:
        return
    entries = FileEntries(entries_folder(store, rungs.search))
    rates = {one.run.key: _rate(one.run.config) for one in plan.runs}
    entries.put(TERMS, Terms(rates, rungs.fractions, rungs.eta, rungs.audit).to_json())
    known = readings_by_step(store, rates)
    for one in plan.runs:
        _note_before(entries, replace(one.step, rungs=rungs), store, known.get(one.run.key, {}))


def _note_before(entries: FileEntries, step: Step, store: Store, known: Known) -> None:
    folder, state = store.folder(StepKind.TRAIN, step.key), observe(store, StepKind.TRAIN, step.key)
    if state.phase is not Phase.SUCCEEDED:
        max_steps, trained = _trained(folder.model, state)
        manifest = DataManifest.read(store.manifest(step.data_key))
        note_trained(entries, step, max_steps, trained, manifest.eval_fingerprint, folder, known)
    if state.outcome is not None:
        note_end(entries, step, state.outcome, folder, known)


def _trained(model: Path, state: StepState) -> tuple[int, int]:
    """A run's number of steps, and those that it has done. A run on Modal has no checkpoints here."""
    facts = state.outcome.facts if state.outcome and state.phase is Phase.AT_RUNG else {}
    if newest := checkpoints.newest_step(model):
        at = read_json(model / f"{checkpoints.PREFIX}{newest}" / "trainer_state.json", lenient=True)
        return int(at.get("max_steps") or 0), newest
    return int(facts.get("max_steps") or 0), int(facts.get("step") or 0)


def _refusals(planned: Sequence[PlannedRun], search: SearchChoice, store: Store) -> Iterator[str]:
    runs = [one.run for one in planned]
    if not all(one.trains for one in planned):
        yield "stages has no train, so there is nothing to stop. Add train to stages, or leave search.rungs out."
    if len(runs) == 1:
        yield "a single run cannot be compared with others. Sweep over something, or leave search.rungs out."
    for run in runs:
        name = " ".join(run.experiment.overrides) or run.key
        if not (run.config.get("val_set_size") or run.config.get("test_datasets")):
            yield (
                f"{name} has no held-out rows, so there is nothing to compare by. Set val_set_size=0.05, or leave "
                "search.rungs out."
            )
        if not checkpoints.can_resume(run.config):
            yield (
                f"{name} saves checkpoints that a stopped run could not go on from (save_only_model, or ReLoRA over "
                "quantized weights). Change that, or leave search.rungs out."
            )
    for max_steps in {run.config["max_steps"] for run in runs if run.config.get("max_steps")}:
        if 0 in Rungs("", search.rungs, search.eta).steps(max_steps):
            yield f"max_steps={max_steps} has too few steps for these rungs. Request fewer rungs, or train longer."
    if differing := _differing_rows(runs, store):
        yield differing
    if differing := _differing_lengths(runs):
        yield (
            f"its runs have different numbers of steps ({differing}), so they cannot be compared at "
            f"{named(search.rungs)} of their steps. Sweep over them in separate sweeps, or leave search.rungs out."
        )


def _differing_rows(runs: Sequence[Run], store: Store) -> str:
    """Why runs are not known to have the same held-out rows; empty if they are."""
    keys = dict.fromkeys(run.data_key for run in runs)
    if len(keys) == 1:
        return ""
    prints = {key: DataManifest.read(store.manifest(key)).eval_fingerprint for key in keys}
    out = "Sweep over them in separate sweeps, or leave search.rungs out."
    if own := next((one for run in runs if (one := own_data_of(run.config))), None):
        return (
            f"its runs read different data of their own ({own.why}), so it is unknown whether they can be compared. "
            f"{out}"
        )
    if unknown := [key for key, one in prints.items() if one is None]:
        return (
            f"its runs read {len(keys)} datasets, and whether these have the same held-out rows is unknown before "
            f"{', '.join(unknown)} {'is' if len(unknown) == 1 else 'are'} prepared. Prepare them first with "
            f"'stages=[preprocess]'. {out}"
        )
    if len(set(prints.values())) > 1:
        return f"its runs have different held-out rows, so their losses cannot be compared. {out}"
    return ""


def _differing_lengths(runs: Sequence[Run]) -> str:
    """What of the runs' lengths differs, with two values; empty if nothing does."""
    lengths = [_length(run) for run in runs]
    other = next((one for one in lengths if one != lengths[0]), lengths[0])
    names = lengths[0].keys() | other.keys()
    pairs = {name: (lengths[0].get(name), other.get(name)) for name in sorted(names)}
    return ", ".join(f"{name}={one} and {two}" for name, (one, two) in pairs.items() if one != two)


def _length(run: Run) -> dict[str, Any]:
    """What decides the number of a run's steps, besides its rows. Packed rows do not divide evenly into batches."""
    config, count = run.config, run.experiment.gpu.count
    if config.get("max_steps"):
        return {"max_steps": config["max_steps"]}  # whatever the batch: uneven_rows_note
    batch = {**{name: config.get(name) or 1 for name in BATCH}, "gpu.count": count}
    if not config.get("sample_packing"):
        batch = {" x ".join(batch): math.prod(batch.values())}
    return {"num_epochs": config.get("num_epochs"), **batch}


def _batch_size(run: Run) -> int:
    return int(math.prod(run.config.get(name) or 1 for name in BATCH)) * run.experiment.gpu.count


def _rate(config: Mapping[str, Any]) -> float | None:
    rate = config.get("learning_rate")
    return float(rate) if isinstance(rate, int | float) else None


def _listed(fractions: Sequence[float]) -> str:
    return f"[{','.join(f'{one:g}' for one in fractions)}]"
