"""W&B -> what it has of each run of a sweep: the source of rows where the store that trained them is not at hand.

W&B itself is asked by a process of its own (runner.wandb.read_process): this one knows no W&B.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from modal_app.process.tracking import Kept, sweep_tag
from modal_app.store.layout import Store
from modal_app.store.step import StepKind
from runner.compare.metrics import Curves
from runner.compare.params import flat
from runner.compare.source import RESERVED, RunFacts
from runner.errors import SweepError
from runner.store.ledger import Ledger
from runner.store.run_state import RunStatus
from runner.wandb.ask import ask, refuse_unreachable
from runner.wandb.messages import MOST_ROWS, STEP, TrackedRun, Wanted

READ_S = 900.0
"""As long as all that is read may take: the SDK itself goes on asking a server that has gone for days."""
STILL_HERE = "`axosweep compare` without --from wandb reads what lies here."

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
"""W&B's word for a run -> ours. It knows no class of a failure."""
OF_ONE_RUN = frozenset(
    "run_key data_key eval_fingerprint git_commit _wandb wandb_version output_dir logging_dir run_name".split()
)
"""In W&B's config of a run: what names it, and is no parameter."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A sweep, or some of its runs, with the store that knows it, if one does."""

    sweep: str
    store: Store | None = None
    only: Collection[str] | None = None


@dataclass(frozen=True, slots=True)
class Read:
    facts: Sequence[RunFacts]
    notes: Sequence[str]
    """What has to be known to read the numbers."""


def read(asked: Sequence[Asked], project: str | None = None, entity: str | None = None) -> Read:
    """Raises SweepError without a key, when W&B does not answer, and for a sweep or a run that it does not have."""
    refuse_unreachable("Reading from W&B", STILL_HERE)
    places = [wanted_of(one.sweep, one.store, project, entity) for one in asked]
    request = list(dict.fromkeys(place for ones in places for place in ones))
    raw = ask(
        "runner.wandb.read_process", [asdict(one) for one in request],
        failed="W&B could not be read; what it said stands above.", otherwise=STILL_HERE, timeout_s=READ_S,
    )  # fmt: skip
    there = {place: [TrackedRun(**run) for run in runs] for place, runs in zip(request, raw, strict=True)}
    facts: list[RunFacts] = []
    for one, ones in zip(asked, places, strict=True):
        found = facts_from(one.sweep, [run for place in ones for run in there[place]], one.only)
        _refuse_absent(one, found, ones)
        facts += found
    return Read(facts, sampled(run for runs in there.values() for run in runs))


def _refuse_absent(asked: Asked, found: Sequence[RunFacts], places: Sequence[Wanted]) -> None:
    where = ", ".join("/".join(filter(None, (one.entity, one.project))) for one in places)
    lacking = sorted(set(asked.only or ()) - {one.key for one in found})
    if lacking:
        raise SweepError(
            f"W&B has no run {', '.join(lacking)} of {asked.sweep} in {where}. `axosweep sync` uploads it."
        )
    if not found:
        raise SweepError(
            f"W&B has no run of a sweep {asked.sweep} in {where}: none with that group or the tag "
            f"{sweep_tag(asked.sweep)}. A sweep that is not in this store goes by its whole id; --project and --entity "
            "say where to look; `axosweep sync` uploads what ran offline."
        )


def wanted_of(sweep: str, store: Store | None, project: str | None, entity: str | None) -> list[Wanted]:
    """Where a sweep's runs are: as asked, else where those that the store knows were tracked, else by the config."""
    kept = _kept(store, sweep) if store else []
    places = dict.fromkeys((project or one.project, entity or one.entity) for one in kept)
    if not places or not all(where for where, _ in places):
        known_project, known_entity = _configured()
        places = {(project or known_project, entity or known_entity): None}
    return [Wanted(sweep, sweep_tag(sweep), where, whose) for where, whose in places]


def facts_from(sweep: str, runs: Iterable[TrackedRun], only: Collection[str] | None = None) -> list[RunFacts]:
    """One of each run key, the newest, or of those keys. Runs that are none of ours are left out. Pure."""
    newest = {str(run.config["run_key"]): run for run in runs if run.config.get("run_key")}
    kept = {key: run for key, run in newest.items() if only is None or key in only}
    configs = _configs(list(kept.values()))
    return [_facts(sweep, key, run, config) for (key, run), config in zip(kept.items(), configs, strict=True)]


def curves_from(history: Iterable[Mapping[str, Any]]) -> Curves:
    """Rows of W&B, under the names of metrics.jsonl; the last value of each step and name counts. Pure.

    >>> rows = [{"_step": 1, STEP: 2, "eval/loss": 1.0}, {"_step": 0, STEP: 2, "eval/loss": 9.0, "eval/ppl": 3.0}]
    >>> dict(curves_from(rows).by_name)
    {'eval_loss': {2: 1.0}, 'eval_ppl': {2: 3.0}}
    """
    collected: dict[str, dict[int, float]] = {}
    for row in sorted(history, key=lambda one: one.get("_step") or 0):
        if not isinstance(row.get(STEP), int | float) or not {"train/loss", "eval/loss"} & row.keys():
            continue  # the summary at the end, which metrics.jsonl does not have either
        for name, value in row.items():
            told = _number(value)
            if told is not None and name != STEP and not name.startswith("_"):
                collected.setdefault(_our_name(name), {})[int(row[STEP])] = told
    if "tokens/trainable" in collected:
        collected["tokens"] = collected["tokens/trainable"]
    return Curves({name: dict(sorted(points.items())) for name, points in collected.items()})


def sampled(runs: Iterable[TrackedRun]) -> list[str]:
    """A sentence when some run has more rows than W&B gives at once."""
    keys = sorted(str(run.config.get("run_key")) for run in runs if len(run.history) >= MOST_ROWS)
    return [f"W&B gives {MOST_ROWS} rows of a run at most; it has more of {', '.join(keys)}."] if keys else []


def _facts(sweep: str, key: str, run: TrackedRun, config: Mapping[str, Any]) -> RunFacts:
    curves, told = curves_from(run.history), run.summary
    asked_steps = run.config.get("max_steps")  # -1 where the epochs decide
    return RunFacts(
        key=key,
        data_key=str(run.config.get("data_key") or ""),
        sweeps=(sweep,),
        overrides=(),
        config=config,
        curves=curves,
        status=STATES.get(run.state, RunStatus.LOST),
        reason=None,
        message="" if run.state in STATES else f"W&B says that it is {run.state}, which axosweep does not know",
        log=None,
        store=None,
        folder=None,
        eval_fingerprint=run.config.get("eval_fingerprint") or None,
        attempts=None,
        max_steps=told.get("max_steps") or (asked_steps if asked_steps and asked_steps > 0 else None),
        seconds=told.get("seconds"),
        train_seconds=told.get("train_seconds"),
        gpu=told.get("gpu"),
        paid_seconds=told.get("paid_seconds"),
        dollars=told.get("dollars"),
        peak_memory_gib=told.get("peak_memory_gib") or curves.most(RESERVED),
    )


def _configs(runs: Sequence[TrackedRun]) -> list[dict[str, Any]]:
    """As the store has them. Where some run lacks its composed config, what all of them have at the top in W&B: that
    is what was swept, among what transformers puts there."""
    composed = [run.composed for run in runs if run.composed is not None]
    if len(composed) == len(runs):
        return [flat(*(one.get(name, {}) for name in ("axolotl", "gpu", "data", "from"))) for one in composed]
    shared = set.intersection(*(set(run.config) for run in runs)) - OF_ONE_RUN
    return [{name: run.config[name] for name in sorted(shared)} for run in runs]


def _our_name(name: str) -> str:
    """transformers renames for W&B: `eval_loss` is `eval/loss`, and `loss` is `train/loss`."""
    return f"eval_{name.removeprefix('eval/')}" if name.startswith("eval/") else name.removeprefix("train/")


def _number(value: Any) -> float | None:
    """W&B writes what is no number as a word."""
    match value:
        case bool():
            return None
        case int() | float():
            return float(value) if math.isfinite(value) else math.nan
        case "NaN" | "Infinity" | "-Infinity":
            return math.nan
    return None


def _kept(store: Store, sweep: str) -> list[Kept]:
    """Where the runs of a sweep were tracked, as far as the store knows."""
    keys = [run.key for run in Ledger(store, sweep).plan().runs]
    return [kept for key in keys if (kept := Kept.read(store.folder(StepKind.TRAIN, key).tracking)) is not None]


def _configured() -> tuple[str, str]:
    """tracking.project and tracking.entity of the root config."""
    import yaml  # late: tables do without

    from runner.config.project import ROOT_CONFIG, current_project

    path = current_project().config_files()[Path(ROOT_CONFIG)]
    try:
        found = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("tracking") or {}
    except yaml.YAMLError as error:
        raise SweepError(f"{path} is no YAML: {error}") from error
    return found.get("project") or "axosweep", found.get("entity") or ""
