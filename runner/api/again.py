"""Runs of an earlier sweep, composed again from their overrides, and launched as runs of that sweep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from modal_app.store.layout import Store
from runner.api import application
from runner.api.plans import refuse_pages, request_words
from runner.composing.search_node import NO_SEARCH
from runner.errors import SweepError
from runner.launch.identify import identify, resolve
from runner.launch.plan import plan
from runner.launch.plan_diff import changed_since
from runner.launch.price import price
from runner.launch.sweep import unresolved_text
from runner.launch.types import Launch
from runner.request import Action, Request, SearchChoice
from runner.store.stores import is_mirror
from runner.types import Experiment, RunResult

UNKNOWN_CHANGE = "its config files, its data, the trainer or the current folder"


ALONE = "hydra.sweeper.alone=true"
"""The overrides of a run do not name the axes of its sweep file that the command line had left out."""


@dataclass(frozen=True, slots=True)
class ComposedAgain:
    """Runs that are ready to be planned or launched."""

    experiments: tuple[Experiment, ...]
    request: Request
    known: tuple[str, ...]
    """The keys that the first of these runs had when they were trained."""

    def planned(self, otherwise: str, way_out: str = "") -> Launch:
        """What it would run and cost. Raises SweepError if it cannot be launched, or if a known run would have another
        key now. `otherwise`: what that would mean, and `way_out`: what to do other than change things back."""
        launch = resolve(self.experiments, replace(self.request, action=Action.PLAN))
        if refused := launch.preflight.refusal():
            raise SweepError(refused)
        launch = price(plan(identify(launch)))
        if text := unresolved_text(launch.plan):
            raise SweepError(f"Nothing was started: {text}")
        for key, run in zip(self.known, launch.runs, strict=False):
            if run.key != key:
                changed = changed_since(run, launch.store, key, trainer=launch.trainer) or UNKNOWN_CHANGE
                raise SweepError(
                    f"The run {key} would be another one now ({run.key}), so {otherwise}. This has changed since it "
                    f"was trained: {changed}. Change it back{way_out}."
                )
        return launch


def compose_again(overrides: Sequence[str], store: Store, sweep: str) -> tuple[list[Experiment], Request]:
    """Compose them as runs of the sweep that are trained to their end. Raises SweepError for overrides that cannot be
    composed any more."""
    found: list[tuple[list[Experiment], Request]] = []

    def collect(experiments: list[Experiment], request: Request) -> list[RunResult]:
        found.append((experiments, request))
        return []

    try:
        application.run(request_words([*overrides, *NO_SEARCH, ALONE], str(root_of(store))), collect, refuse_pages)
    except SweepError as error:
        raise SweepError(f"The runs of {sweep} cannot be composed again in this folder: {error}") from error
    experiments, request = found[-1]
    return experiments, replace(request, sweep=sweep, search=SearchChoice())


def root_of(store: Store) -> Path:
    """The folder that a launch names as its store."""
    return store.root.parent if is_mirror(store) else store.root
