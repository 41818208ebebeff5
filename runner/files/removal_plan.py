"""Decides from a store's stock what `rm` removes, and what it keeps. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePosixPath

from modal_app.store.checkpoints import ASIDE, PREFIX
from modal_app.store.layout import LATEST
from runner.console.numbers import counted
from runner.errors import SweepError
from runner.files.run_files import Entry
from runner.files.stock import Stock, StockedRun

TRASH = ".trash-"
"""A folder next to what is removed. Files are moved there first, so that nothing half-removed looks complete."""
AGES = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}

AtWork = Callable[[str], str]
"""Run key or data key -> what works on it or is about to, in words; empty if nothing does."""


class Kind(StrEnum):
    RUN = "run"
    CHECKPOINTS = "checkpoints"
    DATASET = "dataset"
    INPUT = "input"
    LEFTOVER = "leftover"


@dataclass(frozen=True, slots=True)
class Choice:
    """Which runs to remove."""

    runs: frozenset[str] = frozenset()
    sweeps: frozenset[str] = frozenset()
    every: bool = False
    """Nothing was named."""
    before: float | None = None
    """Only runs that were last written before that time (Unix seconds)."""

    def takes(self, one: StockedRun) -> bool:
        named = self.every or one.key in self.runs or bool(self.sweeps & set(one.sweeps))
        return named and (self.before is None or last_written(one.files) < self.before)

    def shared(self, stock: Stock, one: StockedRun) -> str:
        """Which sweeps that were not named have a run, too, or may have it; empty if the run itself was named."""
        if self.every or one.key in self.runs:
            return ""
        if others := [sweep for sweep in one.sweeps if sweep not in self.sweeps]:
            return f"{', '.join(others)} has it, too"
        plans = [path for path in stock.unread if path.endswith("/plan.json")]
        return f"{', '.join(plans)} cannot be read, and may have it, too" if plans else ""


@dataclass(frozen=True, slots=True)
class ToDelete:
    """Files that are removed together."""

    kind: Kind
    key: str
    """The key of a run or dataset, the name of an input, or the path of a leftover."""
    paths: tuple[str, ...]
    """Files and folders below the store's root, "done" files first."""
    bytes: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class KeptRun:
    key: str
    why: str


@dataclass(frozen=True, slots=True)
class Removal:
    to_delete: tuple[ToDelete, ...]
    kept: tuple[KeptRun, ...] = ()

    @property
    def bytes(self) -> int:
        return sum(one.bytes for one in self.to_delete)


def age_s(text: str) -> float:
    """Seconds.

    >>> age_s("30d"), age_s("12h")
    (2592000.0, 43200.0)
    """
    if not (found := re.fullmatch(r"(\d+(?:\.\d+)?)([mhdw])", text)):
        raise SweepError(f"--older-than {text} is not an age: write 12h, 30d or 2w.")
    return float(found[1]) * AGES[found[2]]


def runs_to_remove(stock: Stock, choice: Choice, at_work: AtWork) -> Removal:
    """A run is kept if a process works on it or another run was started from it; also if another sweep has it and the
    run itself was not named."""
    to_delete, kept = list[ToDelete](), list[KeptRun]()
    going: set[str] = set()
    chosen = [one for one in stock.runs.values() if one.made and choice.takes(one)]
    # Children before their parents, so that both can be removed together.
    for one in sorted(chosen, key=lambda one: _generation(stock, one), reverse=True):
        if why := at_work(one.key) or choice.shared(stock, one) or _children(stock, one, going):
            kept.append(KeptRun(one.key, why))
        else:
            going.add(one.key)
            to_delete.append(_run(one))
    return Removal(tuple(to_delete), tuple(kept))


def checkpoints_to_remove(stock: Stock, choice: Choice, at_work: AtWork) -> Removal:
    """The checkpoints of finished runs, which will not resume from them. Of a run that has stopped at a rung only if it
    is named itself: its search may let it go on, and `resume` may be asked to."""
    to_delete, kept = list[ToDelete](), list[KeptRun]()
    for one in stock.runs.values():
        folders = folders_named(one.files, lambda path: path.name.startswith((PREFIX, ASIDE)))
        if not folders or not choice.takes(one):
            continue
        if one.rung and not one.finished and one.key not in choice.runs:
            kept.append(KeptRun(one.key, f"{_at_rung(one)} from its checkpoints; name the run to remove them"))
        elif not one.finished and not one.rung:
            kept.append(KeptRun(one.key, "it has not finished, and resumes from its checkpoints"))
        elif why := at_work(one.key) or _children(stock, one, set()):
            kept.append(KeptRun(one.key, why))
        else:
            note = counted(len(folders), "checkpoint")
            note += "" if one.finished else f"; {_at_rung(one)}, and would begin again"
            to_delete.append(ToDelete(Kind.CHECKPOINTS, one.key, tuple(folders), sum(folders.values()), note))
    return Removal(tuple(to_delete), tuple(kept))


def _run(one: StockedRun) -> ToDelete:
    names = {entry.path.removeprefix(f"{one.home}/").split("/")[0] for entry in one.made}
    names |= {LATEST} if one.begun else set()  # a link, which is not among the entries
    order = sorted(names, key=lambda name: (name != "result.json", name))
    others = f"of {len(one.sweeps)} sweeps" if len(one.sweeps) > 1 else ""
    status = "" if one.finished else _at_rung(one) if one.rung else "not finished"
    note = ", ".join(filter(None, (status, others)))
    return ToDelete(Kind.RUN, one.key, tuple(f"{one.home}/{name}" for name in order), bytes_of(one.made), note)


def _at_rung(one: StockedRun) -> str:
    return f"it stopped at rung {one.rung} of a search, and may still go on"


def _children(stock: Stock, one: StockedRun, going: Collection[str]) -> str:
    children = [key for key in stock.children(one.key) if key not in going]
    return f"{', '.join(children)} {'was' if len(children) == 1 else 'were'} started from it" if children else ""


def _generation(stock: Stock, one: StockedRun) -> int:
    """How many ancestors it has."""
    depth, seen = 0, {one.key}
    while (parent := stock.runs.get(one.parent)) is not None and parent.key not in seen:
        one, depth = parent, depth + 1
        seen.add(one.key)
    return depth


def folders_named(entries: Iterable[Entry], wanted: Callable[[PurePosixPath], bool]) -> dict[str, int]:
    """The outermost matching folders, and the bytes below each."""
    found: dict[str, int] = {}
    for entry in entries:
        above = [path for path in reversed(PurePosixPath(entry.path).parents) if wanted(path)]
        if above:
            found[str(above[0])] = found.get(str(above[0]), 0) + entry.size
    return found


def bytes_of(entries: Iterable[Entry]) -> int:
    return sum(entry.size for entry in entries)


def last_written(entries: Iterable[Entry]) -> float:
    return max((entry.mtime for entry in entries), default=0.0)
