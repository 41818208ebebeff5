"""A sweep of a store -> the values that its report draws, ready for JSON. Only reads."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modal_app.store.layout import Store
from modal_app.store.step import StepKind
from runner.compare.flags import HEALED
from runner.compare.measured import is_of_a_task
from runner.compare.metrics import Curves
from runner.compare.params import labels, show_values
from runner.compare.ranking import EVAL_LOSS, OBJECTIVE, Metric, Row, rows_from
from runner.compare.row_losses import verdicts_of
from runner.compare.settings import SEEDS
from runner.compare.source import RunFacts, facts_of_sweep
from runner.compare.table import heading_of
from runner.compare.verdict_types import JudgedSetting, settings_by_run
from runner.config.project import find_project
from runner.console.redact import redact
from runner.cost.receipt import (
    PARTS,
    Receipt,
    container_receipts,
    containers_line,
    receipt_of,
    replaced_note,
    totals,
)
from runner.cost.spent import containers, sweep_cost
from runner.files.answers import answer_sets
from runner.html_report import reproduce, words
from runner.html_report.analysis import analysis
from runner.html_report.answers import samples, tables
from runner.html_report.card import card
from runner.html_report.curves import moments, points_each, rounded, series
from runner.html_report.effects import is_number
from runner.html_report.search import rungs_of_run, search_values
from runner.html_report.settings import Setting, ranked, settings
from runner.html_report.verdict import verdict_values
from runner.html_report.where import where_values
from runner.show.following import headway_of_sweep
from runner.store.going_on import goes_on
from runner.store.ledger import Ledger, SweepPlan
from runner.store.run_state import RunStatus

TAIL_LINES = 25
TAIL_BYTES = 6_000
MOST_TAILS = 40
"""Further failures are listed without their logs, which rarely show anything new."""
TRAIN_LOSS = "loss"

_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[@-_]")


@dataclass(frozen=True, slots=True)
class _Sweep:
    store: Store
    ledger: Ledger
    plan: SweepPlan
    rows: Sequence[Row]
    curves: Mapping[str, Curves]
    """By run key."""


def gather(store: Store, sweep: str) -> dict[str, Any]:
    """Everything in a report. Raises SweepError when there is no such sweep."""
    ledger = Ledger(store, sweep)
    plan, facts = ledger.plan(), facts_of_sweep(store, sweep)
    found = _Sweep(store, ledger, plan, rows_from(facts), {one.key: one.curves for one in facts})
    rows, found_settings = found.rows, settings(found.rows)
    names = {row.key: name or row.key for row, name in zip(rows, labels([row.params for row in rows]), strict=True)}
    best = card(found_settings, found.curves, {one.key: one.config["from"] for one in facts if "from" in one.config})
    first = best["runs"][:1] if best else []
    # A process that writes a report of what it has launched has ended it, though runs may stand at a rung.
    going_on = goes_on(store, sweep, [row.status for row in rows], but=os.getpid())
    verdicts = () if going_on else verdicts_of(rows, EVAL_LOSS)  # watch gathers again every few seconds
    judged = settings_by_run(verdicts)
    winners = _starred(found_settings, judged)
    sets = answer_sets(store, names)
    command = found.plan.command
    cost = sweep_cost(store, sweep, found.plan.runs)
    replaced = replaced_note(row.receipt for row in rows if row.receipt)
    return {
        "sweep": sweep,
        "made_at": round(time.time(), 1),
        "asked_at": found.plan.created_at,
        "going_on": going_on,
        "headway": _headway(store, sweep, facts) if going_on else None,
        "question": redact(words.question(rows, _question_of(command), OBJECTIVE)),
        "verdicts": verdict_values(verdicts),
        "answer": [redact(line) for line in words.answer(rows, found_settings, OBJECTIVE, judged=bool(verdicts))],
        "card": best
        and best
        | {
            "cost": cost and cost.bill.dollars,
            "samples": samples(sets, best["runs"]),
            "is_shared": not all(one.is_decided_for(first[0]) for one in verdicts),
        },
        "note": redact(plan.note),
        "metric": OBJECTIVE,
        "counts": words.counted(rows),
        "cost": [*(cost.lines(going_on=False) if cost else []), *([replaced] if replaced else [])],
        "params": list(rows[0].params) if rows else [],
        "seeds": [name for name in SEEDS if name in rows[0].params] if any(one.n > 1 for one in found_settings) else [],
        "runs": [
            _run(found, row, names[row.key])
            | {"params": params, "is_best": row.key in winners}
            | {"difference": rounded(_difference(judged.get(row.key)))}
            for row, params in zip(rows, _shown_params(rows), strict=True)
        ],
        "answers": tables(sets),
        "where": None if going_on else where_values(store, found_settings),
        "analysis": analysis(rows),
        "search": search_values(store, sweep, rows),
        "receipt": _totals(found),
        "parts": list(PARTS),
        "containers": _containers(rows, names),
        "failures": _failures(rows, names),
        "reproduce": reproduce.block(store, sweep, found.plan, next((row for row in rows if row.key in first), None)),
    }


def _starred(found: Sequence[Setting], judged: Mapping[str, JudgedSetting]) -> set[str]:
    """The runs of every setting that is not shown to be worse than another; of those that are not judged, the best."""
    best = {key for ones in ranked(found) for key in ones[0].keys if key not in judged}
    return best | {key for key, one in judged.items() if one.in_best_group}


def _difference(one: JudgedSetting | None) -> float | None:
    return None if one is None else one.difference


def _headway(store: Store, sweep: str, facts: Sequence[RunFacts]) -> dict[str, Any]:
    """What the live view on a terminal shows above its lines."""
    headway = headway_of_sweep(store, sweep, facts, time.time())
    return {"counted": headway.counted, "timed": headway.timed, "part": round(headway.part, 4)}


def tail(log: str) -> str:
    """The last lines of a log, without secrets and terminal colours; empty if there is no log."""
    path = Path(log)
    if not log or not path.is_file():
        return ""
    with path.open("rb") as file:
        file.seek(start := max(0, path.stat().st_size - TAIL_BYTES))
        text = file.read().decode(errors="replace")
    if start:
        text = text.partition("\n")[2] or text  # its first line may begin within a secret
    lines = [line.rstrip("\r").rpartition("\r")[2] for line in _plain(text).removesuffix("\n").split("\n")]
    return redact("\n".join(lines[-TAIL_LINES:]))


def _question_of(command: str) -> str | None:
    """The question in the comments of the sweep file, if that file still exists."""
    name = words.sweep_file_of(command)
    file = find_project().sweep_files().get(name) if name else None
    return words.question_in(file.read_text(encoding="utf-8")) if file else None


def _totals(found: _Sweep) -> dict[str, Any]:
    """The totals of all runs and datasets."""
    data_keys = dict.fromkeys(run.data_key for run in found.plan.runs)
    of_data = [receipt_of(found.store.folder(StepKind.PREPROCESS, key)) for key in data_keys]
    receipts = {row.key: row.receipt for row in found.rows if row.receipt}
    known = totals([*receipts.values()], [one for one in of_data if one])
    return known | {"containers": containers_line([*receipts.values()], len(container_receipts(receipts)))}


def _containers(rows: Sequence[Row], names: Mapping[str, str]) -> list[dict[str, Any]]:
    return [
        {
            "container": one.container,
            "runs": [redact(names[key]) for key in one.runs],
            "seconds": one.seconds,
            "parts": one.parts,
            "dollars": rounded(one.dollars),
            "gpu": one.gpu,
            "ended_because": one.ended_because,
        }
        for one in container_receipts({row.key: row.receipt for row in rows if row.receipt})
    ]


def _run(found: _Sweep, row: Row, name: str) -> dict[str, Any]:
    receipt = row.receipt or Receipt(0.0)
    return {
        "key": row.key,
        "name": redact(name),
        "status": row.status,
        "reason": row.reason,
        "rung": row.rung,
        "rungs": rungs_of_run(row),
        "message": redact(row.message),
        "final": rounded(row.final),
        "ranked": rounded(row.final) if row.status is RunStatus.SUCCEEDED else None,
        "measured": {
            heading_of(Metric(key)): rounded(value) for key, value in row.measured.items() if is_of_a_task(key)
        },
        "best": rounded(row.best),
        "first": rounded(row.first),
        "step": row.step,
        "max_steps": row.max_steps,
        "rows": (row.eval_fingerprint or "")[:8],
        "attempts": row.attempts,
        "seconds": rounded(row.seconds),
        "train_seconds": rounded(row.train_seconds),
        "tokens_per_second": rounded(row.tokens_per_second),
        "peak_memory": rounded(row.peak_memory_gib),
        "flags": [row.healed if flag == HEALED else flag for flag in row.flags],
        "gpu": row.gpu,
        "paid": rounded(receipt.seconds) or None,
        "dollars": rounded(row.dollars),
        "parts": receipt.parts,
        "curves": _curves(found, row),
    }


def _curves(found: _Sweep, row: Row) -> dict[str, Any]:
    folder = found.store.folder(StepKind.TRAIN, row.key)
    curves, rented = found.curves[row.key], containers(folder)
    most = points_each(2 * len(found.rows))
    named = {"train": TRAIN_LOSS, "eval": OBJECTIVE}
    clock = moments(folder.metrics)
    drawn = {kind: series(curves, clock, metric, most, rented, row.dollars) for kind, metric in named.items()}
    return {kind: one for kind, one in drawn.items() if one}


def _failures(rows: Sequence[Row], names: Mapping[str, str]) -> list[dict[str, Any]]:
    """The failures with the last lines of their logs. If many runs share a log, that of their dataset, it is shown only
    once."""
    failures: list[dict[str, Any]] = []
    seen: set[str] = set()
    for row in rows:
        if row.status in (RunStatus.SUCCEEDED, RunStatus.RUNNING, RunStatus.PENDING, RunStatus.AT_RUNG):
            continue
        log = row.log or ""
        shows = log not in seen and len(seen) < MOST_TAILS
        failures.append(
            {
                "key": row.key,
                "name": redact(names[row.key]),
                "status": row.status,
                "reason": row.reason,
                "message": redact(row.message),
                "advice": [redact(line) for line in row.advice],
                "log": log,
                "tail": tail(log) if shows else "",
            }
        )
        seen.add(log)
    return failures


def _shown_params(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Of each run: a number unchanged, anything else as text for a table."""
    names = list(rows[0].params) if rows else []
    texts = {name: show_values([row.params.get(name) for row in rows]) for name in names}
    return [
        {name: value if is_number(value) else redact(texts[name][place]) for name, value in row.params.items()}
        for place, row in enumerate(rows)
    ]


def _plain(text: str) -> str:
    """The text without escape sequences and control characters, which would show as boxes."""
    text = _ESCAPE.sub("", text)
    return "".join(one for one in text if one in "\n\r\t" or ord(one) >= 32)
