"""The files with a run's per-row losses. Without such files, numpy and the modules that need it are not imported."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modal_app.store.layout import Store
from modal_app.store.state import read_outcome
from modal_app.store.step import OutcomeStatus, StepKind
from runner.compare.ranking import EVAL_LOSS, Metric, Row
from runner.compare.verdict_types import Verdict
from runner.store.run_config import read_identity

if TYPE_CHECKING:
    from modal_app.held_out.row_losses import RowLosses

MOST_NAMED = 3
"""With more sweeps than this, they are only counted."""
UNLIKE = "the held-out rows are of a single document, or runs have losses of other rows than the rest."


def verdicts_of(rows: Sequence[Row], metric: Metric) -> tuple[Verdict, ...]:
    """One for each eval fingerprint with per-row losses of two settings at least; none for another metric than the eval
    loss, since rows have no other. `rows`: ranked ones."""
    if metric != EVAL_LOSS or not any(losses_files(row) for row in judgeable(rows)):
        return ()
    from runner.compare.verdicts import verdicts_on

    return tuple(verdicts_on(rows))


def unjudged_notes(rows: Sequence[Row], verdicts: Sequence[Verdict], metric: Metric) -> list[str]:
    """For the runs that could have a verdict and have none: why, and what adds it."""
    found: dict[str | None, list[Row]] = {}
    for row in judgeable(rows) if metric == EVAL_LOSS else ():
        found.setdefault(row.eval_fingerprint, []).append(row)
    judged = {one.eval_fingerprint for one in verdicts}
    unjudged = [
        row
        for fingerprint, ones in found.items()
        if fingerprint not in judged and len({row.setting for row in ones}) > 1
        for row in ones
        if _why_without_rows(row) or _has_a_loss_by_token(row)
    ]
    if not unjudged:
        return []
    missing = without_rows([row for row in unjudged if not _has_losses(row)])
    return [f"It is unknown which differences are chance: {missing or UNLIKE}"]


def without_rows(rows: Sequence[Row]) -> str:
    """Why these runs have no per-row losses, or what adds them; empty if there are none."""
    found = []
    for reason, number in Counter(map(_why_without_rows, rows)).items():
        runs = f"{number} run{' has' if number == 1 else 's have'} no per-row losses"
        found.append(f"{runs} ({reason})." if reason else f"{runs}: {_what_adds_them(rows)}.")
    return " ".join(found)


def _what_adds_them(rows: Sequence[Row]) -> str:
    sweeps = dict.fromkeys(row.sweeps[0] for row in rows if row.sweeps and not _why_without_rows(row))
    if len(sweeps) > MOST_NAMED:
        return f"`axosweep eval SWEEP` adds them, once for each of their {len(sweeps)} sweeps"
    return f"{' and '.join(f'`axosweep eval {one}`' for one in sweeps)} add{'s' if len(sweeps) == 1 else ''} them"


def _why_without_rows(row: Row) -> str:
    """Why the run has left no per-row losses, as its training has found out; empty if it does not say."""
    return str(row.record.get("no_row_losses") or "")


def config_of(row: Row) -> Mapping[str, Any]:
    """The composed Axolotl config of a run of a store."""
    found = read_identity(Store(Path(str(row.store))).folder(StepKind.TRAIN, row.key).identity)
    axolotl: dict[str, Any] = found.get("axolotl", {})
    return axolotl


def judgeable(rows: Sequence[Row]) -> list[Row]:
    """The runs that a verdict may be about, each once: finished ones of a store, of a setting that can win."""
    found = {row.key: row for row in reversed(rows) if row.store and row.eval_fingerprint and row.can_win}
    return [row for row in rows if found.get(row.key) is row]


def losses_files(row: Row) -> list[Path]:
    """The file of the run's last evaluation while it trained, then that of each `axosweep eval`, the newest first. The
    first that is not damaged counts."""
    if row.store is None:
        return []
    trained = [_left_by_training(row)] if has_losses_of_training(row) else []
    return [*trained, *_measured_later(Store(Path(row.store)), row.key)]


def has_losses_of_training(row: Row) -> bool:
    return _left_by_training(row).is_file()


def _left_by_training(row: Row) -> Path:
    return Store(Path(str(row.store))).folder(StepKind.TRAIN, row.key).losses


def losses_of(row: Row) -> RowLosses | None:
    from modal_app.held_out.row_losses import RowLosses

    return next((found for path in losses_files(row) if (found := RowLosses.read(path)) is not None), None)


def _has_losses(row: Row) -> bool:
    return bool(losses_files(row)) and losses_of(row) is not None


def _has_a_loss_by_token(row: Row) -> bool:
    """A preference loss or a reward is one number for a pair of answers."""
    return not any(config_of(row).get(name) for name in ("rl", "reward_model", "process_reward_model"))


def _measured_later(store: Store, run: str) -> list[Path]:
    found: dict[float, Path] = {}
    for kind, key in store.after(run):
        folder = store.folder(kind, key)
        outcome = read_outcome(folder.done) if kind is StepKind.EVALUATE and folder.losses.is_file() else None
        if outcome is not None and outcome.status is OutcomeStatus.SUCCEEDED:
            found[outcome.finished_at] = folder.losses
    return [found[at] for at in sorted(found, reverse=True)]
