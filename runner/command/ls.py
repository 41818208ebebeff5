"""`axosweep ls`: the files of a run, how large they are and where."""

from __future__ import annotations

from collections.abc import Sequence

from runner.compare.table import Column, table
from runner.console import terminal
from runner.console.parser import Names, VerbParser
from runner.console.print_json import print_json
from runner.console.transfer import size_text
from runner.files.about import about
from runner.files.places import chosen_run, files_of, state_of
from runner.files.run_files import Files, Part, all_bytes, parts_of
from runner.store.run_state import status_text
from runner.store.stores import stores


def parser() -> VerbParser:
    verb = VerbParser("ls", description="The files of a run, how large they are and where.")
    best = "a sweep means its best run; the newest sweep by default"
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
        status_json = {"status": state.status, "reason": state.reason}
        print_json({"run": run.key, "data_key": run.data_key, **status_json, "parts": _as_json(files, parts)})
    else:
        status = status_text(state.status, state.reason)
        _show(files, parts, f"{run.key}: {status}, {size_text(all_bytes(parts))}")
    return 0


def _as_json(files: Files, parts: Sequence[Part]) -> list[dict[str, object]]:
    return [
        {
            "part": part.name,
            "about": about(files, part),
            "whole": part.whole,
            "bytes": part.bytes,
            "place": files.place(part.folder),
            "files": [{"name": part.named(entry), "bytes": entry.size} for entry in part.files],
        }
        for part in parts
    ]


def _show(files: Files, parts: Sequence[Part], title: str) -> None:
    columns = [
        Column("what", tuple(part.name for part in parts), left=True),
        Column("about it", tuple(about(files, part) for part in parts), left=True),
        Column("files", tuple(str(len(part.files)) for part in parts)),
        Column("size", tuple(size_text(part.bytes) for part in parts)),
        Column("", tuple("" if part.whole else "incomplete" for part in parts), left=True),
        Column("where", tuple(files.place(part.folder) for part in parts), left=True),
    ]
    columns = [one for one in columns if one.heading not in ("", "about it") or any(one.cells)]
    console = terminal.results()
    terminal.say(console, title)
    console.print(table(columns, "", [False] * len(parts)), crop=False)
