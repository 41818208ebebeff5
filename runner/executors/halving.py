"""The runs of a search on this machine: what is recorded when one ends, and which stopped runs go on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from modal_app.halving.earlier import Known, readings_by_step
from modal_app.halving.ends import note_end, rung_of_stop
from modal_app.halving.entries import FileEntries, entries_folder, loss_of
from modal_app.halving.halve import look
from modal_app.store.layout import Store
from modal_app.store.state import Phase, StepState
from modal_app.store.step import Step
from runner.types import Plan


@dataclass(slots=True)
class LocalSearch:
    """The search of a plan whose runs stop at rungs."""

    store: Store
    search: str
    entries: FileEntries
    has_news: bool = True
    """Whether a run has ended since the last look."""

    @classmethod
    def of(cls, plan: Plan, store: Store) -> Self | None:
        rungs = next((one.step.rungs for one in plan.pending if one.step.rungs), None)
        return cls(store, rungs.search, FileEntries(entries_folder(store, rungs.search))) if rungs else None

    def note_end(self, step: Step, state: StepState) -> None:
        """Record the end of a step that no process works on."""
        if step.rungs is not None and state.outcome is not None:
            folder = self.store.folder(step.kind, step.key)
            note_end(self.entries, step, state.outcome, folder, self._known(step, state))
            self.has_news = True

    def rung_of(self, step: Step, state: StepState) -> int:
        """The rung of this search at which a run has stopped; 0 if it has not. If the record of what it reached there
        can no longer be read, the run has to write it again."""
        if step.rungs is None or state.phase is not Phase.AT_RUNG:
            return 0
        rung = rung_of_stop(step.rungs, state.outcome, self._known(step, state))
        return rung if rung and self.entries.get(loss_of(rung, step.key)) else 0

    def _known(self, step: Step, state: StepState) -> Known:
        """Read only of a run that another search has stopped, since each read goes through every search."""
        facts = state.outcome.facts if state.outcome and state.phase is Phase.AT_RUNG else {}
        if not facts or facts.get("search") == self.search:
            return {}
        return readings_by_step(self.store, [step.key]).get(step.key, {})

    def promoted(self) -> Mapping[str, int]:
        """The runs that go on from a rung where they have stopped, and this rung."""
        self.has_news = False
        return look(self.entries)
