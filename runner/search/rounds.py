"""Runs a search round by round, each as further runs of one sweep, until nothing is left to be run.

All that is known is in the sweep's folder. So after a kill the same command finds the same rounds, skips what is
finished, and goes on with what is not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from runner.composing.hydra_sweep import LaunchSweep
from runner.composing.searched import SearchInput
from runner.console import terminal
from runner.console.interrupts import terminate_as_interrupt
from runner.console.numbers import counted, number
from runner.errors import SweepError
from runner.request import Action, Request, SearchRound
from runner.search.definition import Definition, define
from runner.search.methods import Losses, Method, Round, named
from runner.search.metric import note_on
from runner.search.points import RefusedValues, Setting
from runner.search.records import Records, RoundRuns
from runner.types import RunResult

OPENING = (
    "search={method} chooses the runs of each round by the results of earlier rounds, so this command has to stay "
    "alive. If it is killed or stopped, run the same command again: it continues where it was."
)
MOST_LEFT_OUT = 5
"""Points that are named before a round."""
NOTHING = "No point can be run: all are left out."


def run_search(searched: SearchInput, request: Request, launch: LaunchSweep) -> list[RunResult]:
    """Plan the first round, or run round after round with `launch` and print the results.

    Returns one result for each run, and one more if the search is not over. Raises SweepError before anything starts,
    and for results that do not compare.
    """
    with terminate_as_interrupt():
        try:
            definition = define(searched, request)
        except RefusedValues as refused:
            if request.action is Action.PLAN:
                return launch(list(refused.experiments), request)  # it says what is wrong, as with any sweep
            raise
        if note := note_on(request.search.metric, definition.points.probed.experiments):
            terminal.message(f"note: {note}")
        if request.action is Action.PLAN:
            return _plan(definition, launch)
        with definition.alone():
            return _Search(definition, launch).run()


def _plan(definition: Definition, launch: LaunchSweep) -> list[RunResult]:
    """Plan the first round that is not finished, or the last one if all are."""
    method, records = definition.method(write=False), Records(definition)
    shown: Round | None = None
    while (found := method.next_round()) is not None:
        shown = found
        known = records.of(found.settings).losses()
        if len(known) < len(found.settings):
            break
        method.tell(known)
    if shown is None:
        raise SweepError(NOTHING)
    experiments = [one for setting in shown.settings for one in setting.experiments]
    return launch(experiments, replace(_request_of(definition, shown), left_out=tuple(method.left_out)))


class _Search:
    """One search while it runs."""

    def __init__(self, definition: Definition, launch: LaunchSweep) -> None:
        self._definition, self._launch = definition, launch
        self._request = definition.request
        self._method: Method = definition.method(write=True)
        self._records = Records(definition)
        self._launched = 0
        """How many rounds were launched by this command."""
        self._resumes = bool(self._method.losses)
        """Whether the method knows the results of earlier rounds, so that this command does not count those."""
        self._left_out = 0
        """How many points it has said to be left out."""

    def run(self) -> list[RunResult]:
        number_of_round, problem = 0, ""
        last: Sequence[Setting] = ()
        while not problem and (found := self._next_round()) is not None:
            number_of_round += 1
            last = found.settings
            runs = self._records.of(last)
            if len(runs.losses()) == len(last):
                runs.record()
                self._method.tell(runs.losses())
                continue
            self._say(number_of_round, found)
            problem = self._budget_problem(runs)
            if not problem and self._run(found, runs):
                runs = self._records.of(last)
                if not (problem := self._why_it_ends(runs)):
                    self._method.tell(runs.losses(failures_count=True))
        return self._close(last, problem)

    def _next_round(self) -> Round | None:
        found = self._method.next_round()
        new = self._method.left_out[self._left_out :]
        for one in new[:MOST_LEFT_OUT]:
            terminal.message(f"left out  {' '.join(one.overrides)}: {one.why}")
        if len(new) > MOST_LEFT_OUT:
            terminal.message(f"left out  {len(new) - MOST_LEFT_OUT} more")
        self._left_out += len(new)
        return found

    def _run(self, found: Round, runs: RoundRuns) -> bool:
        """Whether the round was run. If Axolotl's own schema refuses some of its points, these are left out, and the
        method has another round."""
        request = _request_of(self._definition, found)
        if request.budget is not None:
            request = replace(request, budget=runs.dollars_left(request.budget))
        try:
            self._launch(runs.to_launch(), replace(request, confirmed=request.confirmed or self._launched > 0))
        except SweepError:
            refused = [
                one for one in self._definition.points.screened([s.point for s in found.settings]) if one.refusal
            ]
            if not refused or (len(refused) == len(found.settings) and not self._method.losses):
                raise
            for one in refused:
                self._method.leave_out(one)
            return False
        self._launched += 1
        return True

    def _budget_problem(self, runs: RoundRuns) -> str:
        """Why a round cannot be paid for; of the first one, the launch itself says it, unless runs of it that ended in
        an earlier launch have spent all there is."""
        budget = self._request.budget
        if budget is None or not runs.is_over(budget, is_first=not self._method.losses):
            return ""
        left = max(0.0, runs.dollars_left(budget))
        return (
            f"The next round may cost more than the ${left:.2f} that are left of budget={budget:g}. To continue, "
            "run the same command with a higher budget=."
        )

    def _why_it_ends(self, runs: RoundRuns) -> str:
        """What keeps a search from going on after a round; otherwise empty."""
        runs.refuse_other_rows()
        if missing := runs.unfinished():
            return (
                f"The search is not over: {counted(len(missing), 'run')} of this round did not end "
                f"({', '.join(missing[:5])}). To continue, run the same command again."
            )
        losses = runs.losses(failures_count=True)
        if all(loss is None for loss in losses.values()):
            return (
                f"The search is not over: no run of this round has a value of {self._request.search.metric}, so the "
                "search cannot choose the next runs. Once that is fixed, run the same command to continue."
            )
        return ""

    def _close(self, last: Sequence[Setting], problem: str) -> list[RunResult]:
        """Print all results."""
        points = [*self._method.losses, *(one.point for one in last)]
        experiments = self._definition.points.experiments(list(dict.fromkeys(points)))
        if not experiments:
            raise SweepError(NOTHING)
        self._records.note(over=not problem)
        closing = SearchRound(closing=True, others=self._definition.points.probed.experiments)
        results = self._launch(experiments, replace(self._request, budget=None, round=closing))
        if problem:
            terminal.message(problem)
            return [*results, RunResult("", succeeded=False, objective=None, message=problem)]
        terminal.message(f"The search is over: {counted(len(results), 'run')}{self._best('best')}.")
        return results

    def _say(self, place: int, found: Round) -> None:
        """One line for each round, after what has to be known first."""
        if not self._launched:
            terminal.message(OPENING.format(method=self._request.search.method))
            self._records.note(over=False)
        runs = counted(sum(len(one.experiments) for one in found.settings), "run")
        which = f"round {place}{' of this command' if self._resumes else ''}"
        terminal.message(f"{which}  {runs}: {found.title}{self._best()}")

    def _best(self, what: str = "best so far") -> str:
        losses: Losses = self._method.losses
        finite = {point: loss for point, loss in losses.items() if loss is not None and math.isfinite(loss)}
        if not finite:
            return ""
        best = min(finite, key=finite.__getitem__)
        value = number(self._records.as_logged(finite[best]))
        return f"; {what}: {named(self._definition.points.axes, best)}, {self._request.search.metric} {value}"


def _request_of(definition: Definition, found: Round) -> Request:
    points = definition.points
    part = SearchRound(found.further * points.seeds, found.beyond, others=points.probed.experiments)
    return replace(definition.request, round=part)
