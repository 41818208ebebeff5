"""launch() and load(): a sweep that was run, with its rows and curves as plain records."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from modal_app.store.layout import Store
from modal_app.store.step import StepKind
from runner.api import application
from runner.api.plans import refuse_further, refuse_pages, request_words
from runner.api.records import Records
from runner.compare.metrics import read_curves
from runner.compare.ranking import EVAL_LOSS, Row, compare_sweep
from runner.compare.row_losses import verdicts_of
from runner.compare.verdict_types import Verdict
from runner.errors import SweepError
from runner.html_report.finish import leave_report
from runner.launch.sweep import run_sweep
from runner.launch.types import Launch
from runner.request import Request
from runner.store.finding import sweep_in
from runner.store.stores import stores
from runner.types import Experiment, RunResult


@dataclass(frozen=True, slots=True)
class Sweep:
    """A sweep as it was when it was loaded; load it again to see what has changed since."""

    id: str
    store: Path
    """The folder with its results."""
    rows: tuple[Row, ...]
    """One for each run, best first within each eval fingerprint, unfinished ones last."""

    @property
    def best(self) -> Row | None:
        """The best run of the best setting. None if no run can win, or if there is one in each of several fingerprints,
        whose losses do not compare.
        """
        winners = [row for row in self.rows if row.is_best]
        return winners[0] if len(winners) == 1 else None

    def verdicts(self) -> tuple[Verdict, ...]:
        """Which settings are better than others, and which cannot be told apart, one for each eval fingerprint with
        per-row losses of two settings at least. Computed again at each call.
        """
        return verdicts_of(self.rows, EVAL_LOSS)

    def records(self) -> Records:
        """A record for each run: its key and status, its parameters by their names, and the figures of its row."""
        return Records(_flat(row) for row in self.rows)

    def curves(self, *names: str) -> Records:
        """Everything that the runs have logged under these names (by default under all): `run`, `name`, `step`,
        `value`, in the order of the rows.
        """
        store = Store(self.store)
        return Records(
            {"run": row.key, "name": name, "step": step, "value": value}
            for row in self.rows
            for name, points in read_curves(store.folder(StepKind.TRAIN, row.key).metrics).by_name.items()
            if not names or name in names
            for step, value in points.items()
        )


NOT_FLAT = ("params", "record", "measured", "over_seeds", "sweeps", "overrides", "flags", "rungs")


def _flat(row: Row) -> dict[str, Any]:
    figures = {name: value for name, value in asdict(row).items() if name not in NOT_FLAT}
    figures |= {"status": str(row.status), "reason": str(row.reason) if row.reason else None}
    rungs = {f"rung.{one.rung}": one.loss for one in row.rungs}
    return {"key": figures.pop("key"), **row.params, **figures, "flags": " ".join(row.flags), **rungs, **row.measured}


def launch(*overrides: str, store: str | None = None) -> Sweep:
    """Run what `axosweep -m OVERRIDES` would run, and wait for its end. Progress goes to standard error. A run that was
    finished before is not trained again. `store`: the folder of results; by default AXOSWEEP_STORE or ./out.

    Raises SweepError before anything starts. A run that fails is a row with its status.
    """
    launched: list[Launch] = []

    def run(experiments: list[Experiment], request: Request) -> list[RunResult]:
        refuse_further(launched)
        return run_sweep(experiments, request, finish)

    def finish(over: Launch, rows: Sequence[Row]) -> None:
        launched.append(over)
        if rows:
            leave_report(over.store, over.plan.sweep)

    with refusals_with_text():
        application.run(request_words(overrides, store), run, refuse_pages)
    return _loaded(launched[-1].store, launched[-1].plan.sweep)


@contextlib.contextmanager
def refusals_with_text() -> Iterator[None]:
    """On the command line, what is wrong with runs is printed before Axolotl's schema is checked, and an error to which
    the schema adds nothing has no text. For a program, the error gets a text."""
    try:
        yield
    except SweepError as error:
        if str(error):
            raise
        raise SweepError(
            "The launch was refused. What is wrong was printed on standard error; `axosweep.plan` with the same words "
            "returns it as `refused`."
        ) from error


def load(sweep: str | None = None, *, store: str | None = None) -> Sweep:
    """A sweep by its id or the beginning of its id; by default the newest. Raises SweepError if there is none."""
    found = sweep_in(stores(store), sweep)
    return _loaded(found.store, found.sweep)


def _loaded(store: Store, sweep: str) -> Sweep:
    return Sweep(sweep, store.root, tuple(compare_sweep(store, sweep)))
