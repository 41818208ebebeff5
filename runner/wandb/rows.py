"""Reads the runs of a sweep from W&B: a source of rows when the store that trained them is not available."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modal_app.process.tracking import RECEIPT, STOPPED_AT_RUNG, TrackingRecord, sweep_tag
from modal_app.store.layout import Store
from modal_app.store.step import StepKind
from runner.compare.params import flat
from runner.compare.source import RunFacts
from runner.cost.receipt import PARTS, QUEUE, Receipt
from runner.cost.run_memory import RESERVED
from runner.errors import SweepError
from runner.store.ledger import Ledger
from runner.store.run_state import RunStatus
from runner.wandb.call import call, check_reachable
from runner.wandb.history import MOST_ROWS, curves_from
from runner.wandb.messages import ReadRequest, ReadResponse, SweepLocation, TrackedRun

TIMEOUT_S = 900.0
"""For one read: the SDK itself would retry a missing server for days."""
ADVICE = "`axosweep compare` without --from wandb reads the runs that are here."

STATES: Mapping[str, RunStatus] = {
    "finished": RunStatus.SUCCEEDED,
    "running": RunStatus.RUNNING,
    "pending": RunStatus.PENDING,
    "preempting": RunStatus.STOPPED,
    "preempted": RunStatus.STOPPED,
    "killed": RunStatus.STOPPED,
    "crashed": RunStatus.LOST,
    "failed": RunStatus.FAILED,
}
"""W&B's state of a run -> our status. W&B has no reasons of failures."""
NOT_PARAMETERS = frozenset(
    "run_key data_key eval_fingerprint git_commit _wandb wandb_version output_dir logging_dir run_name".split()
)
"""Keys in W&B's config of a run that are not parameters."""


@dataclass(frozen=True, slots=True)
class Selection:
    """A sweep, or some of its runs, with its store if there is one."""

    sweep: str
    store: Store | None = None
    only: Collection[str] | None = None


@dataclass(frozen=True, slots=True)
class ReadResult:
    facts: Sequence[RunFacts]
    notes: Sequence[str]
    """Remarks that a reader of the numbers must know."""


def read(selections: Sequence[Selection], project: str | None = None, entity: str | None = None) -> ReadResult:
    """Raises SweepError without a key, when W&B does not answer, and for a sweep or a run that is not there."""
    check_reachable("Reading from W&B", ADVICE)
    locations = [locations_of(one.sweep, one.store, project, entity) for one in selections]
    request = ReadRequest(tuple(dict.fromkeys(location for several in locations for location in several)))
    failed = "W&B could not be read; its error is printed above."
    response = call(request, ReadResponse, failed=failed, advice=ADVICE, timeout_s=TIMEOUT_S)
    runs = dict(zip(request.locations, response.runs, strict=True))
    facts: list[RunFacts] = []
    for selection, several in zip(selections, locations, strict=True):
        found = facts_from(selection.sweep, [run for location in several for run in runs[location]], selection.only)
        _check_found(selection, found, several)
        facts += found
    return ReadResult(facts, sampled(run for several in response.runs for run in several))


def _check_found(selection: Selection, found: Sequence[RunFacts], locations: Sequence[SweepLocation]) -> None:
    where = ", ".join("/".join(filter(None, (one.entity, one.project))) for one in locations)
    lacking = sorted(set(selection.only or ()) - {one.key for one in found})
    if lacking:
        raise SweepError(
            f"W&B has no run {', '.join(lacking)} of {selection.sweep} in {where}. `axosweep sync` uploads it."
        )
    if not found:
        raise SweepError(
            f"W&B has no run of a sweep {selection.sweep} in {where}: none with that group or the tag "
            f"{sweep_tag(selection.sweep)}. A sweep that is not in this store needs its complete id. --project and "
            "--entity set where to look; `axosweep sync` uploads offline runs."
        )


def locations_of(sweep: str, store: Store | None, project: str | None, entity: str | None) -> list[SweepLocation]:
    """Where a sweep's runs are: as requested, or where the store's runs were tracked, or as set in the config."""
    records = _tracking_records(store, sweep) if store else []
    places = dict.fromkeys((project or one.project, entity or one.entity) for one in records)
    if not places or not all(where for where, _ in places):
        default_project, default_entity = _configured_place()
        places = {(project or default_project, entity or default_entity): None}
    return [SweepLocation(sweep, sweep_tag(sweep), where, whose) for where, whose in places]


def facts_from(sweep: str, runs: Iterable[TrackedRun], only: Collection[str] | None = None) -> list[RunFacts]:
    """The newest run of each run key, or only of the keys in `only`. Without runs of other programs. Pure."""
    newest = {str(run.config["run_key"]): run for run in runs if run.config.get("run_key")}
    selected = {key: run for key, run in newest.items() if only is None or key in only}
    configs = _configs(list(selected.values()))
    return [_facts(sweep, key, run, config) for (key, run), config in zip(selected.items(), configs, strict=True)]


def sampled(runs: Iterable[TrackedRun]) -> list[str]:
    """A sentence if a run has more rows than W&B returns."""
    keys = sorted(str(run.config.get("run_key")) for run in runs if len(run.history) >= MOST_ROWS)
    return [f"W&B returns at most {MOST_ROWS} rows of a run; these have more: {', '.join(keys)}."] if keys else []


def _facts(sweep: str, key: str, run: TrackedRun, config: Mapping[str, Any]) -> RunFacts:
    curves, summary = curves_from(run.history), run.summary
    rung = int(summary.get(STOPPED_AT_RUNG) or 0) if STATES.get(run.state) is RunStatus.SUCCEEDED else 0
    max_steps = run.config.get("max_steps")  # -1 where the epochs decide
    return RunFacts(
        key=key,
        data_key=str(run.config.get("data_key") or ""),
        sweeps=(sweep,),
        overrides=(),
        config=config,
        curves=curves,
        status=RunStatus.AT_RUNG if rung else STATES.get(run.state, RunStatus.LOST),
        reason=None,
        message="" if run.state in STATES else f"its state in W&B is {run.state}, which axosweep does not know",
        log=None,
        store=None,
        folder=None,
        eval_fingerprint=run.config.get("eval_fingerprint") or None,
        attempts=None,
        max_steps=summary.get("max_steps") or (max_steps if max_steps and max_steps > 0 else None),
        seconds=summary.get("seconds"),
        train_seconds=summary.get("train_seconds"),
        gpu=summary.get("gpu"),
        paid_seconds=summary.get("paid_seconds"),
        dollars=summary.get("dollars"),
        peak_memory_gib=summary.get("peak_memory_gib") or curves.most(RESERVED),
        rung=rung,
        receipt=_receipt(summary),
    )


def _receipt(summary: Mapping[str, Any]) -> Receipt | None:
    """The seconds by part, without the containers. Before a sync: those of the last attempt's worker."""
    named = {name: summary.get(f"{RECEIPT}{name}") for name in ("seconds", *PARTS)}
    parts = {name: float(value) for name, value in named.items() if isinstance(value, int | float) and value > 0}
    recorded = sum(seconds for name, seconds in parts.items() if name not in ("seconds", QUEUE))
    seconds = parts.pop("seconds", round(recorded, 3))
    return Receipt(seconds, parts) if parts else None


def _configs(runs: Sequence[TrackedRun]) -> list[dict[str, Any]]:
    """The configs, as in the store. If a run lacks its composed config: the top-level keys that all runs have in W&B,
    which are the swept ones and those of transformers."""
    composed = [run.composed for run in runs if run.composed is not None]
    if len(composed) == len(runs):
        return [flat(*(one.get(name, {}) for name in ("axolotl", "gpu", "data", "from"))) for one in composed]
    shared = set.intersection(*(set(run.config) for run in runs)) - NOT_PARAMETERS
    return [{name: run.config[name] for name in sorted(shared)} for run in runs]


def _tracking_records(store: Store, sweep: str) -> list[TrackingRecord]:
    keys = [run.key for run in Ledger(store, sweep).plan().runs]
    return [
        record
        for key in keys
        if (record := TrackingRecord.read(store.folder(StepKind.TRAIN, key).tracking)) is not None
    ]


def _configured_place() -> tuple[str, str]:
    """tracking.project and tracking.entity of the root config."""
    import yaml  # imported late: only needed if no run was tracked

    from runner.config.project import ROOT_CONFIG, current_project

    path = current_project().config_files()[Path(ROOT_CONFIG)]
    try:
        tracking = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("tracking") or {}
    except yaml.YAMLError as error:
        raise SweepError(f"{path} is not valid YAML: {error}") from error
    return tracking.get("project") or "axosweep", tracking.get("entity") or ""
