"""How the runs of a search share what they have reached: in entries, each put once and never changed.

    terms           the members of the search, and how it halves
    loss/<k>/<run>  what a run has reached at rung k
    go/<k>/<run>    it goes on from there, and why
    stop/<k>/<run>  it has stopped there: its checkpoint is saved, and its job has ended
    out/<k>/<run>   it has failed after rung k, 0 for none, and as long as it is not tried again it comes no further

Here they are files in the sweep's folder; on Modal, entries of the Dict of claims, and the same files on the Volume.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from modal_app.store.layout import Store
from modal_app.store.read_json import read_json

TERMS = "terms"


def loss_of(rung: int, run: str) -> str:
    return f"loss/{rung}/{run}"


def go_of(rung: int, run: str) -> str:
    return f"go/{rung}/{run}"


def stop_of(rung: int, run: str) -> str:
    return f"stop/{rung}/{run}"


def out_of(after: int, run: str) -> str:
    return f"out/{after}/{run}"


class Entries(Protocol):
    """The entries of one search. A process that has put an entry sees all entries that were put before."""

    def put(self, name: str, value: Mapping[str, Any]) -> bool:
        """Put it unless there is one of this name; returns whether it was put. A value that is empty counts as
        unreadable."""
        ...

    def get(self, name: str) -> Mapping[str, Any] | None: ...

    def items(self) -> Mapping[str, Mapping[str, Any]]:
        """All of them, by name."""
        ...


def entries_folder(store: Store, search: str) -> Path:
    """The folder of a search's entries. `search`: <sweep id>/<hash of its terms>."""
    sweep, _, own = search.rpartition("/")
    return store.sweeps / sweep / "rungs" / own


@dataclass(frozen=True, slots=True)
class FileEntries:
    """A file each. A file is linked to its name when it is complete, which fails if the name is taken."""

    folder: Path

    def put(self, name: str, value: Mapping[str, Any]) -> bool:
        path = self.folder / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            with temporary.open("w", encoding="utf-8") as file:
                file.write(json.dumps(value))
                file.flush()
                os.fsync(file.fileno())
            os.link(temporary, path)
        except FileExistsError:
            if read_json(path, lenient=True):
                return False
            temporary.replace(path)  # the disk has lost its content
        finally:
            temporary.unlink(missing_ok=True)
        return True

    def get(self, name: str) -> Mapping[str, Any] | None:
        return read_json(self.folder / f"{name}.json") or None

    def items(self) -> Mapping[str, Mapping[str, Any]]:
        paths = [path for path in self.folder.rglob("*.json") if not path.name.startswith(".")]
        names = {path: path.relative_to(self.folder).as_posix().removesuffix(".json") for path in paths}
        found = {name: read_json(path) for path, name in names.items()}
        return {name: value for name, value in found.items() if value}  # except those that cannot be read
