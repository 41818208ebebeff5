"""Which runs of a store are served on this machine, and by which process: a note per server, as on the runs Volume."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from modal_app.serving.spec import SERVED
from modal_app.store.claim import Owner, this_process
from modal_app.store.layout import Store
from modal_app.store.read_json import read_as
from modal_app.store.step import write_atomically


@contextlib.contextmanager
def noted(store: Store, runs: Sequence[str]) -> Iterator[None]:
    """During the block, a command that would remove one of these runs sees that this process serves it."""
    note = store.root / SERVED / f"{os.getpid()}-{secrets.token_hex(4)}.json"
    try:
        with contextlib.suppress(OSError):  # a store that we may not write to gets no note
            _clear_dead(store)
            note.parent.mkdir(exist_ok=True)
            write_atomically(note, json.dumps({"owner": asdict(this_process("")), "runs": list(runs)}))
        yield
    finally:
        with contextlib.suppress(OSError):
            note.unlink(missing_ok=True)


def servers(store: Store) -> dict[str, Owner]:
    """Run key -> a live process that serves it."""
    return {run: owner for _, owner, runs in _notes(store) if owner.is_alive() for run in runs}


def _clear_dead(store: Store) -> None:
    """Remove the notes of killed servers."""
    for path, owner, _ in _notes(store):
        if not owner.is_alive():
            path.unlink(missing_ok=True)


def _notes(store: Store) -> Iterator[tuple[Path, Owner, Sequence[str]]]:
    for path in sorted((store.root / SERVED).glob("*.json")):
        note = read_as(path, lambda raw: (Owner(**raw["owner"]), tuple(map(str, raw["runs"]))))
        if note is not None:  # otherwise, its server has just ended
            yield path, *note
