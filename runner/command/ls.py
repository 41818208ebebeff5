"""`axosweep ls`: the files of a run, how large they are and where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from modal_app.store.step import FailureReason
from runner.compare.table import Column, table
from runner.console import terminal
from runner.console.parser import Names, VerbParser
from runner.console.print_json import print_json
from runner.console.transfer import size_text
from runner.files.about import about
from runner.files.places import chosen_run, files_of, state_of
from runner.files.run_files import Files, Part, all_bytes, parts_of
from runner.store.run_state import RunStatus, status_text
from runner.store.stores import stores


@dataclass(frozen=True, slots=True)
class ListedFile:
    name: str
    bytes: int


@dataclass(frozen=True, slots=True)
class ListedPart:
    """Files that belong together: the adapter, a checkpoint, the logs."""

    part: str
    """As `pull` takes it."""
    about: str
    whole: bool
    """Whether nothing of it is missing."""
    bytes: int
    place: str
    """The folder, or where it is on Modal."""
    files: tuple[ListedFile, ...]


@dataclass(frozen=True, slots=True)
class FilesOfRun:
    """What `ls --json` prints."""

    run: str
    data_key: str
    status: RunStatus
    reason: FailureReason | None
    parts: tuple[ListedPart, ...]
    rung: int | None = None
    """The rung of its search at which it has stopped; null otherwise."""


def parser() -> VerbParser:
    verb = VerbParser("ls", description="The files of a run, how large they are and where.")
    best = "for a sweep, its best run; the newest sweep by default"
    verb.add("run", nargs="?", names=[Names.RUN], help=f"a run's key, or the beginning of it; {best}")
    verb.add_store()
    verb.add_json()
    return verb


def main(words: Sequence[str]) -> int:
    args = parser().read(words)
    store, run = chosen_run(stores(args.store), args.run)
    files = files_of(store, run.key)
    parts = parts_of(files, run.key, run.data_key)
    state = state_of(store, run)
    if args.json:
        listed = tuple(_listed(files, part) for part in parts)
        print_json(FilesOfRun(run.key, run.data_key, state.status, state.reason, listed, state.rung or None))
    else:
        status = status_text(state.status, state.reason, state.rung)
        _show(files, parts, f"{run.key}: {status}, {size_text(all_bytes(parts))}")
    return 0


def _listed(files: Files, part: Part) -> ListedPart:
    return ListedPart(
        part=part.name,
        about=about(files, part),
        whole=part.is_complete,
        bytes=part.bytes,
        place=files.place(part.folder),
        files=tuple(ListedFile(part.named(entry), entry.size) for entry in part.files),
    )


def _show(files: Files, parts: Sequence[Part], title: str) -> None:
    columns = [
        Column("what", tuple(part.name for part in parts), left=True),
        Column("about it", tuple(about(files, part) for part in parts), left=True),
        Column("files", tuple(str(len(part.files)) for part in parts)),
        Column("size", tuple(size_text(part.bytes) for part in parts)),
        Column("", tuple("" if part.is_complete else "incomplete" for part in parts), left=True),
        Column("where", tuple(files.place(part.folder) for part in parts), left=True),
    ]
    columns = [one for one in columns if one.heading not in ("", "about it") or any(one.cells)]
    console = terminal.results()
    terminal.say(console, title)
    console.print(table(columns, "", [False] * len(parts)), crop=False)
