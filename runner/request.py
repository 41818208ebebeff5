"""What is requested for a sweep: the same for all its runs, and in no key. Frozen values, without behaviour."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from runner.types import Experiment


class SearchMethod(StrEnum):
    GRID = "grid"
    """Every combination of the axes."""
    RANDOM = "random"
    """Points that fill the axes evenly, from a scrambled Sobol sequence."""
    COORDINATE = "coordinate"
    """One axis after the other, each at the best values of those before."""
    TPE = "tpe"
    """Points that earlier runs suggest (Optuna's TPESampler)."""


@dataclass(frozen=True, slots=True)
class SearchChoice:
    """The `search` node: which points of the axes are run, and which of them to their end. In no key."""

    method: SearchMethod = SearchMethod.GRID
    runs: int | None = None
    """How many points; None for a method that knows by itself."""
    seed: int = 0
    """Of the points, not of the runs."""
    metric: str = "eval_loss"
    """What coordinate and tpe make as good as they can, by the names of `compare --metric`."""
    rungs: tuple[float, ...] = ()
    """Where runs are compared and most of them stop, as fractions of their steps; empty trains all to the end."""
    eta: int = 3
    """One run in so many goes on from a rung."""
    audit: bool = True
    """Whether one run in ten never stops."""
    maximize: bool = False
    """Whether a larger value of the metric is better. Of a task's metric that is known without it."""


@dataclass(frozen=True, slots=True)
class SearchRound:
    """Which part of a search a launch is, if its points depend on results."""

    further: int = 0
    """How many runs may follow at most."""
    beyond: tuple[str, ...] = ()
    """Values that no axis has and that may follow, as overrides: a step beyond the ends of a list."""
    closing: bool = False
    """All runs of a search that is over: nothing is run, and the results are printed."""
    others: tuple[Experiment, ...] = ()
    """Experiments with each value of each axis, so that it is known what distinguishes a run that is alone in its
    round."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A point of a sweep's axes that is not run."""

    overrides: tuple[str, ...]
    """What it would have been, in the user's words."""
    why: str


class Action(StrEnum):
    LAUNCH = "launch"
    PLAN = "plan"
    OVERRIDES = "overrides"


@dataclass(frozen=True, slots=True)
class Request:
    """What is requested for a sweep. It is the same for all runs of the sweep."""

    action: Action
    name: str
    """The sweep file's or experiment's name, or the swept keys."""
    store: str | None
    json: bool
    force: bool = False
    """Launch even if preflight expects a run to fail, but not if it cannot work."""
    budget: float | None = None
    """US dollars that the sweep may cost; None is no limit."""
    confirm_above: float | None = None
    """US dollars above which a launch on Modal asks first; None never asks."""
    confirmed: bool = False
    """Launch without asking."""
    diff: str | None = None
    """An earlier sweep that a plan is compared with."""
    notify: str | None = None
    """The environment variable that has the address of a webhook, never the address; None sends no notices."""
    notify_command: str | None = None
    """A command that is run here with each notice on its stdin."""
    note: str = ""
    """The user's own words about the sweep. In no key."""
    write: str | None = None
    """The folder that a plan's runs are written to, as configs for plain Axolotl."""
    sweep: str | None = None
    """The id of an earlier sweep that the runs are added to; None makes them a sweep of their own."""
    search: SearchChoice = SearchChoice()
    round: SearchRound | None = None
    """None for a sweep whose runs are all known when it starts."""
    left_out: tuple[LeftOut, ...] = ()
    """The points that are not run, since --exclude leaves them out."""
