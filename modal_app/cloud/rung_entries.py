"""The entries of a search in the Dict of claims, each of them also a file on the runs Volume.

    rung/<search>/<entry>   its value; `modal_app.halving.entries` says what entries there are

Modal deletes old entries of a Dict, and a user may clear it. Entries with a file are put back before any decision. A
file has one writer, the one that has put the entry. In a store on this machine, the entry has the same path.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import modal

from modal_app.cloud.executions import put_if_absent
from modal_app.halving.entries import entries_folder
from modal_app.store.layout import Store
from modal_app.store.read_json import read_json
from modal_app.store.step import write_atomically

PREFIX = "rung/"


class DictEntries:
    """The entries of one search. `store`: the mounted runs Volume, or its mirror, as up to date as it can be."""

    def __init__(self, claims: modal.Dict, search: str, store: Store) -> None:
        self.search = search
        self.written: list[Path] = []
        """The files that this one has written: they are to be committed, or uploaded."""
        self._claims = claims
        self._folder = entries_folder(store, search)

    def put(self, name: str, value: Mapping[str, Any]) -> bool:
        if self._put_back(name):
            return False
        entry = {"value": dict(value), "nonce": secrets.token_hex(8)}
        is_ours = put_if_absent(self._claims, self._key(name), entry)
        self._write(name, value if is_ours else self._claims.get(self._key(name), entry)["value"])
        return is_ours

    def get(self, name: str) -> Mapping[str, Any] | None:
        self._put_back(name)
        entry = self._claims.get(self._key(name))
        return None if entry is None else entry["value"]

    def items(self) -> Mapping[str, Mapping[str, Any]]:
        there = values_of(dict(self._claims.items()), self.search)
        return there | {name: value for name in self._files() - there.keys() if (value := self._put_back(name))}

    def write_missing(self, claims: Mapping[str, Any]) -> None:
        """Write the files of entries whose writer was killed before the files were on the Volume. The store must be up
        to date. `claims`: a copy."""
        there = values_of(claims, self.search)
        for name in there.keys() - self._files():
            self._write(name, there[name])

    def _put_back(self, name: str) -> Mapping[str, Any]:
        """Put an entry that has a file into the Dict, unless it is there; returns what is in the file."""
        value = read_json(self._path(name), lenient=True)
        if value:
            self._claims.put(self._key(name), {"value": value, "nonce": ""}, skip_if_exists=True)
        return value

    def _write(self, name: str, value: Mapping[str, Any]) -> None:
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(value))
        self.written.append(path)

    def _files(self) -> set[str]:
        paths = [path for path in self._folder.rglob("*.json") if not path.name.startswith(".")]
        return {path.relative_to(self._folder).as_posix().removesuffix(".json") for path in paths}

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"

    def _key(self, name: str) -> str:
        return f"{PREFIX}{self.search}/{name}"


def values_of(claims: Mapping[str, Any], search: str) -> dict[str, Mapping[str, Any]]:
    """The entries of a search in a copy of the claims, by name."""
    prefix = f"{PREFIX}{search}/"
    return {key.removeprefix(prefix): entry["value"] for key, entry in claims.items() if key.startswith(prefix)}


def searches_in(claims: Mapping[str, Any]) -> set[str]:
    """The ids of the searches of which a copy of the claims has entries."""
    rests = (key.removeprefix(PREFIX).split("/") for key in claims if key.startswith(PREFIX))
    return {"/".join(parts[:2]) for parts in rests}
