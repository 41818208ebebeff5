"""search.json in a sweep's folder: that its runs were chosen round by round, and whether the search is over."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from modal_app.store.layout import Store
from modal_app.store.read_json import read_as
from modal_app.store.step import write_atomically
from runner.store.ledger import Event, Ledger, live_launchers

FILE = "search.json"


@dataclass(frozen=True, slots=True)
class SearchNote:
    method: str
    over: bool
    """Whether no round follows."""

    def save(self, store: Store, sweep: str) -> None:
        folder = store.sweeps / sweep
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / FILE, json.dumps(asdict(self)))

    @classmethod
    def read(cls, store: Store, sweep: str) -> SearchNote | None:
        """None for a sweep whose runs were all known when it started."""
        return read_as(store.sweeps / sweep / FILE, _note_of)


@dataclass(frozen=True, slots=True)
class InterruptedSearch:
    """A search that is not over, and that no command works on."""

    method: str
    command: str
    """The command line that goes on with it."""

    @property
    def text(self) -> str:
        return (
            f"search={self.method} is not over, and the command that chooses its next runs has ended. To continue "
            f"it: {self.command}"
        )


def interrupted_search(store: Store, sweep: str) -> InterruptedSearch | None:
    """None if its launcher lives on this machine, if it is over, and for other sweeps."""
    note = SearchNote.read(store, sweep)
    if note is None or note.over or live_launchers(store, sweep):
        return None
    launched = [one.message for one in Ledger(store, sweep).records() if one.event is Event.LAUNCHED]
    return InterruptedSearch(note.method, launched[-1]) if launched else None


def _note_of(raw: Mapping[str, Any]) -> SearchNote:
    return SearchNote(str(raw["method"]), bool(raw["over"]))
