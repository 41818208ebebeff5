"""Prints rows and plans to stdout, as tables for people and as JSON for scripts (--json)."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from modal_app.store.layout import Store
from runner.compare.params import label
from runner.compare.ranking import EVAL_LOSS, Row
from runner.console import terminal
from runner.console.numbers import counted
from runner.console.print_json import print_json
from runner.cost.spent import money
from runner.request import LeftOut
from runner.show.status import SweepList, SweepStatus
from runner.store.run_state import RunStatus
from runner.types import Plan, PlannedRun

MOST_LEFT_OUT = 50
"""Points that a plan prints."""


def show_plan(plan: Plan, console: Console, left_out: Sequence[LeftOut] = ()) -> None:
    """Print what would run, each run once, and the points that would not."""
    done = len(plan.runs) - len(plan.pending)
    stopped = sum(planned.at_rung > 0 for planned in plan.pending)
    copies = sum(planned.copies - 1 for planned in plan.runs)
    console.print(f"[bold]{plan.sweep}[/bold]: {counted(len(plan.runs), 'run')}, {_datasets(plan)}")
    for one in plan.datasets:
        if one.damage:
            text = f"The prepared dataset {one.key} is damaged, so it is prepared again: {one.damage}."
            console.print(text, style="yellow", soft_wrap=True, markup=False)
    for line in _own_data_lines(plan):
        console.print(line, soft_wrap=True, markup=False)
    if copies:
        console.print(f"{counted(copies, 'duplicate')} left out: the same run is trained once.")
    for planned in plan.runs:
        key, data = planned.run.key, planned.run.data_key
        console.print(f"  {key}  data {data}  {_word(planned):<9}  {escape(_name(planned))}", soft_wrap=True)
    common = set[str].intersection(*({*one.run.experiment.overrides} for one in plan.runs)) if left_out else set()
    for point in left_out[:MOST_LEFT_OUT]:
        words = " ".join(one for one in point.overrides if one not in common)
        console.print(f"  left out: {words}  ({point.why})", style="yellow", soft_wrap=True, markup=False)
    if len(left_out) > MOST_LEFT_OUT:
        console.print(f"  left out: {len(left_out) - MOST_LEFT_OUT} more, which --json has", style="yellow")
    if plan.after:
        console.print(f"Then, for each: {_later(plan)}.")
    elif not all(planned.trains for planned in plan.runs):
        console.print("Only their datasets are prepared: stages has no train.")
    for found in plan.unresolved:
        console.print(
            f"[yellow]unresolved[/yellow] {escape(f'{found.at}={found.text}: {found.problem}')}", soft_wrap=True
        )
    if done:
        rest = f"{len(plan.pending) - stopped} to train" if plan.has_work else "nothing to do"
        console.print(f"{counted(done, 'run')} finished before, skipped; {rest}.")
    if stopped:
        console.print(f"{counted(stopped, 'run')} stopped at a rung; each continues if it is among the best later.")


def _word(planned: PlannedRun) -> str:
    if planned.at_rung:
        return f"stopped at rung {planned.at_rung}"
    return "[green]finished[/green]" if planned.done else "to train" if planned.trains else "not trained"


def names_of(plan: Plan) -> dict[str, str]:
    """Run key -> name, which distinguishes the run from the others."""
    return {planned.run.key: _name(planned) or planned.run.key for planned in plan.runs}


def show_rows(rows: Sequence[Row], store: Store, sweep: str, *, as_json: bool, judge: bool = True) -> None:
    """Print the comparison of a sweep: one table per eval fingerprint, the best runs marked in each. Without `judge`,
    nothing is said of how much a difference means, which takes numpy and the time to read the per-row losses of all
    runs."""
    from runner.compare.comparison import SweepSelection, comparison  # imported late, so that no run waits for it
    from runner.compare.packed import packed_notes
    from runner.compare.row_losses import unjudged_notes, verdicts_of
    from runner.compare.show import Form, show

    selections = [SweepSelection(store, sweep)]
    verdicts = verdicts_of(rows, EVAL_LOSS) if judge else ()
    notes = [*packed_notes(rows, EVAL_LOSS), *unjudged_notes(rows, verdicts, EVAL_LOSS)] if judge else []
    result = comparison(rows, selections, notes=notes, verdicts=verdicts)
    show(result, selections, Form.JSON if as_json else Form.TABLE)


def show_sweeps(sweeps: Sequence[SweepStatus], store: Store, *, as_json: bool) -> None:
    """Print every sweep with its counts, in the given order."""
    if as_json:
        print_json(SweepList(str(store.root), tuple(sweeps)))
        return
    table = Table(box=None, pad_edge=False)
    statuses = [status for status in RunStatus if any(sweep.counts.get(status) for sweep in sweeps)]
    longest = max((len(sweep.sweep) for sweep in sweeps), default=1)
    priced = any(sweep.dollars is not None for sweep in sweeps)
    noted = any(sweep.note for sweep in sweeps)
    more = [*(["dollars"] if priced else []), *(["note"] if noted else [])]
    for heading in ("sweep", "first launch", "runs", *statuses, *more):
        left = heading in ("sweep", "first launch", "note")
        width = longest if heading == "sweep" else 1  # users type these names, so they are never cut
        table.add_column(heading, justify="left" if left else "right", min_width=width, no_wrap=True)
    for sweep in sweeps:
        launched = time.strftime("%d %b %H:%M", time.localtime(sweep.created_at))
        counts = [sweep.counts.get(status, 0) for status in statuses]
        dollars = ["" if sweep.dollars is None else money(sweep.dollars)] if priced else []
        note = [escape(" ".join(sweep.note.split()))] if noted else []
        table.add_row(sweep.sweep, launched, str(sweep.runs), *(str(count or "") for count in counts), *dollars, *note)
    terminal.results().print(table)


def _name(planned: PlannedRun) -> str:
    return label(planned.step.tracking.params) or " ".join(planned.run.experiment.overrides)


def _datasets(plan: Plan) -> str:
    """Their number, and how many of them are still to be tokenized, since a pending run reads them."""
    if not plan.datasets:
        return "no dataset to prepare"
    wanted = {planned.run.data_key for planned in plan.pending}
    missing = sum(dataset.key in wanted and not dataset.done for dataset in plan.datasets)
    rest = f"{missing} to tokenize" if missing else "nothing to tokenize"
    return f"{counted(len(plan.datasets), 'dataset')} ({rest})"


def _own_data_lines(plan: Plan) -> list[str]:
    """Which runs share no dataset, and why."""
    reasons = Counter(own.why for planned in plan.runs if (own := planned.step.own_data))
    return [
        f"{counted(number, 'run')} {'reads its' if number == 1 else 'read their'} own data, so nothing is prepared or "
        f"shared ({why})."
        for why, number in reasons.items()
    ]


def _later(plan: Plan) -> str:
    missing = [one for one in plan.after if not one.done]
    kinds = ", ".join(dict.fromkeys(str(one.step.kind) for one in plan.after))
    return f"{kinds} ({counted(len(missing), 'step')} to do)" if missing else f"{kinds} (done before)"
