"""Shared parts of the tests of `axosweep pull`, and a store that counts how much is read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from modal_app.store.layout import Store
from runner.cli import main
from runner.errors import SweepError
from runner.files.choice import choose
from runner.files.pull import JOURNAL, FileToPull
from runner.files.run_files import Entry, Files, LocalFiles, parts_of
from runner.types import Run


@dataclass
class Counted:
    """A store whose reads are counted, and that breaks off after so many bytes, as a lost network does."""

    files: Files
    breaks_after: int | None = None
    read_bytes: int = 0
    reads: list[tuple[str, int]] = field(default_factory=list)

    def place(self, path: str) -> str:
        return self.files.place(path)

    def below(self, folder: str) -> list[Entry]:
        return self.files.below(folder)

    def read(self, path: str, start: int) -> Iterator[bytes]:
        self.reads.append((path, start))
        for chunk in self.files.read(path, start):
            for begin in range(0, len(chunk), 10_000):
                piece = chunk[begin : begin + 10_000]
                if self.breaks_after is not None and self.read_bytes >= self.breaks_after:
                    raise SweepError("the network is gone")
                self.read_bytes += len(piece)
                yield piece


def said(capsys: pytest.CaptureFixture[str], *words: str, store: Store, code: int = 0) -> str:
    assert main([*words, "--store", str(store.root)]) == code
    captured = capsys.readouterr()
    return captured.out if code == 0 else captured.err


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {JOURNAL}


def nothing(_: int) -> None:
    pass


def wanted_of(store: Store, one: Run, what: str | None) -> list[FileToPull]:
    local = LocalFiles(store)
    return choose(local, parts_of(local, one.key, one.data_key), what, one.key, "succeeded")
