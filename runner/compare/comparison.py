"""What compare prints: its complete JSON, which docs/compare.schema.json describes, and how that is built."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modal_app.store.layout import Store
from modal_app.store.step import StepKind
from modal_app.store.trained_weights import weights_left_by
from runner.compare.groups import Group
from runner.compare.halved import HalvedSearch, halved, halved_notes
from runner.compare.healed import healed_notes
from runner.compare.ranking import EVAL_LOSS, OBJECTIVE, Metric, Row
from runner.compare.verdict_types import Verdict
from runner.cost.receipt import ContainerReceipt, container_receipts, replaced_note
from runner.cost.spent import SweepCost, sweep_cost
from runner.store.going_on import goes_on
from runner.store.ledger import Ledger
from runner.store.run_config import read_identity
from runner.store.run_state import RunStatus, status_text
from runner.store.searches import searches_of
from runner.store.stores import is_mirror


@dataclass(frozen=True, slots=True)
class ComparedSweep:
    sweep: str
    store: str | None
    """The folder that contains it; null when it was read from W&B."""
    cost: Mapping[str, Any] | None
    """US dollars of everything that the sweep needs, even if it is not in `runs`; null if there is no price."""
    note: str = ""
    """The text of --note."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One row a run, best first within each eval fingerprint. Read it with any JSON parser: NaN is null."""

    sweep: str | None
    """Null when several are compared."""
    store: str | None
    """The folder that contains the first sweep; null when it was read from W&B."""
    cost: Mapping[str, Any] | None
    """US dollars of the sweep; null if several are compared, or there is no price."""
    runs: tuple[Row, ...]
    metric: str = OBJECTIVE
    """What `first`, `best`, `final`, `mean` and `sd` are values of."""
    maximize: bool = False
    """Whether a larger value is better."""
    sweeps: tuple[ComparedSweep, ...] = ()
    over: tuple[str, ...] = ()
    """The parameters that groups are averaged over."""
    groups: tuple[Group, ...] = ()
    """Empty without --over."""
    version: int = 2
    """Of this format. Fields may be added under the same number."""
    notes: tuple[str, ...] = field(default=())
    """Sentences that explain how to read the numbers."""
    verdicts: tuple[Verdict, ...] = ()
    """Which settings are the best, as far as the losses of held-out rows tell: one for each eval fingerprint that has
    per-row losses of several settings. Empty from `status`."""
    searches: tuple[HalvedSearch, ...] = ()
    """The searches of these sweeps that stop runs at rungs, the newest of each sweep."""
    containers: tuple[ContainerReceipt, ...] = ()
    """What each container has done of these runs, in the order in which they began; empty if nothing was rented."""


@dataclass(frozen=True, slots=True)
class SweepSelection:
    """A sweep, or some of its runs, in a store."""

    store: Store
    sweep: str
    only: frozenset[str] | None = None
    """Keys; None is all of them."""


def comparison(
    rows: Sequence[Row], selections: Sequence[SweepSelection], metric: Metric = EVAL_LOSS, over: Sequence[str] = (),
    groups: Sequence[Group] = (), notes: Sequence[str] = (), verdicts: Sequence[Verdict] = (),
) -> Comparison:  # fmt: skip
    """Rows with the dollars of their sweeps."""
    complete = [one for one in selections if one.only is None]
    costs = [cost_of(one.store, one.sweep) for one in complete]
    sweeps = tuple(
        ComparedSweep(
            one.sweep, str(one.store.root), cost.as_json() if cost else None, Ledger(one.store, one.sweep).plan().note
        )
        for one, cost in zip(complete, costs, strict=True)
    )
    single = sweeps[0] if len(sweeps) == len(selections) == 1 else None
    searches = tuple(found for one in complete if (found := _halved(one, rows, metric)))
    replaced = replaced_note(row.receipt for row in rows if row.receipt)
    unfinished = [note for one in complete if (note := _not_over(one, rows))]
    return Comparison(
        sweep=single.sweep if single else None,
        store=str(selections[0].store.root),
        cost=single.cost if single else None,
        runs=tuple(rows),
        metric=metric.name,
        maximize=metric.maximize,
        sweeps=sweeps,
        over=tuple(over),
        groups=tuple(groups),
        notes=(
            *unfinished,
            *([replaced] if replaced else []),
            *halved_notes(rows, searches, metric),
            *healed_notes(rows),
            *notes,
        ),
        verdicts=tuple(verdicts),
        searches=searches,
        containers=tuple(container_receipts({row.key: row.receipt for row in rows if row.receipt})),
    )


def comparison_without_store(
    rows: Sequence[Row], sweeps: Sequence[str], metric: Metric = EVAL_LOSS, over: Sequence[str] = (),
    groups: Sequence[Group] = (), notes: Sequence[str] = (),
) -> Comparison:  # fmt: skip
    """Rows of another source. There is no `cost`: only a store knows what the datasets cost."""
    return Comparison(
        sweep=sweeps[0] if len(sweeps) == 1 else None,
        store=None,
        cost=None,
        runs=tuple(rows),
        metric=metric.name,
        maximize=metric.maximize,
        sweeps=tuple(ComparedSweep(sweep, None, None) for sweep in sweeps),
        over=tuple(over),
        groups=tuple(groups),
        notes=(*halved_notes(rows, (), metric), *notes),
    )


def _halved(selection: SweepSelection, rows: Sequence[Row], metric: Metric) -> HalvedSearch | None:
    """The newest search of a sweep that stops runs at rungs; None without one, or if not all of its runs are rows."""
    found = searches_of(selection.store, selection.sweep)
    return halved(found[0], rows, metric) if found and {*found[0].members} <= {row.key for row in rows} else None


def _not_over(selection: SweepSelection, rows: Sequence[Row]) -> str:
    """A sentence about a sweep whose runs have not all ended, since its best run may change; otherwise empty. The
    launch that prints its own table has ended it."""
    sweep = selection.sweep
    counts = Counter((row.status, row.rung or 0) for row in rows if sweep in row.sweeps)
    if not goes_on(selection.store, sweep, {status for status, _ in counts}, but=os.getpid()):
        return ""
    total = counts.total()
    done = f"{counts.pop((RunStatus.SUCCEEDED, 0), 0)} of {total} done"
    rest = [f"{number} {status_text(status, None, rung)}" for (status, rung), number in sorted(counts.items())]
    return f"{sweep} is not over: {', '.join([done, *rest])}."


def cost_of(store: Store, sweep: str) -> SweepCost | None:
    """What a sweep has cost so far; None where there is no price."""
    return sweep_cost(store, sweep, Ledger(store, sweep).plan().runs)


def model_of(row: Row) -> tuple[str, str]:
    """`adapter` or `model`, and its folder. A mirror has no such folder, so there it is the command to download it."""
    assert row.folder is not None, "a row of a store"
    assert row.store is not None
    store = Store(Path(row.store))
    folder = store.folder(StepKind.TRAIN, row.key)
    what = weights_left_by(read_identity(folder.identity).get("axolotl", {}))
    if not is_mirror(store) or not row.sweeps:
        return what, str(folder.model)
    return what, f"axosweep pull {row.key} DIR"
