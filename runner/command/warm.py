"""`axosweep warm`: shows or ends the preloaded trainers that wait for the next command."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from modal_app.warm.address import Note
from runner.console import terminal
from runner.console.parser import VerbParser
from runner.console.print_json import print_json
from runner.console.question import confirm, is_interactive
from runner.executors import warm_server
from runner.store.stores import open_store

ENDS_WITHIN_S = 10.0


def parser() -> VerbParser:
    about = "Show or end the preloaded trainers that wait for the next command."
    verb = VerbParser("warm", description=about)
    verb.add("what", nargs="?", choices=("status", "stop"), default="status")
    verb.add("--all", action="store_true", help="of all your stores; stop asks first")
    verb.add("--yes", action="store_true", help="stop --all: do not ask")
    verb.add_store()
    verb.add_json()
    return verb


def main(words: Sequence[str]) -> int:
    args = parser().read(words)
    here = open_store(args.store).root
    store = None if args.all else here
    if args.what == "stop":
        return stop(store, here=here, confirmed=args.yes, as_json=args.json)
    return show(store, as_json=args.json)


def show(store: Path | None, *, as_json: bool) -> int:
    """The preloaded trainers of a store, or of all."""
    rows = [_row(note) for note in warm_server.running(store)]
    if as_json:
        print_json({"trainers": rows})
        return 0
    for row in rows:
        terminal.result(_line(row))
    if not rows:
        print("No trainer is preloaded.")
    return 0


def stop(store: Path | None, *, here: Path, confirmed: bool, as_json: bool) -> int:
    """End the trainers of a store, or of all: idle ones now, the others when no command uses them any more. If some
    belong to another store than `here`, ask first, unless `confirmed`.

    Raises SweepError if the answer is not yes.
    """
    found = warm_server.running(store)
    if not confirmed:
        _confirm(found, [note for note in found if Path(note.store) != here.resolve()])
    for note in found:
        warm_server.tell_to_end(note)
    deadline = time.monotonic() + ENDS_WITHIN_S
    rows = []
    for note in found:
        status = warm_server.status(note) or {}
        used = status.get("steps") or status.get("serving")
        ended = warm_server.wait_for_end(note, 0 if used else deadline - time.monotonic())
        rows.append({"pid": note.owner.pid, "store": note.store, "ended": ended})
    if as_json:
        print_json({"trainers": rows})
        return 0
    for row in rows:
        how = "ended" if row["ended"] else "will end when no command uses it"
        terminal.result(f"{row['pid']}  {row['store']}: {how}.")
    if not rows:
        print("No trainer is preloaded.")
    return 0


def _confirm(found: Sequence[Note], others: Sequence[Note]) -> None:
    if not others:
        return
    stores = ", ".join(sorted({note.store for note in others}))
    confirm(
        f"{stores}: {'its trainer waits' if len(others) == 1 else 'their trainers wait'} for the next command there. "
        f"End {'it' if len(found) == 1 else f'all {len(found)}'}?",
        no_terminal=f"Nothing was ended: {stores} {'has' if len(others) == 1 else 'have'} a preloaded trainer, too, "
        "and there is no terminal to ask on. Add --yes, or leave out --all to end only this store's.",
        refused="Nothing was ended.",
        on_terminal=is_interactive(),
    )


def _row(note: Note) -> dict[str, Any]:
    status = warm_server.status(note)
    own = {"pid": note.owner.pid, "store": note.store, "since": note.owner.at, "memory_mib": _memory(note.owner.pid)}
    own |= {"suspended": warm_server.process_state(note.owner.pid) == "T"}
    here = {"ready": status is not None, "ending": not note.address.socket.exists()}
    return own | here | dict(status or {})


def _line(row: dict[str, Any]) -> str:
    return f"{row['pid']}  {row['store']}: " + ", ".join(_words(row))


def _words(row: dict[str, Any]) -> Iterator[str]:
    if row["suspended"]:
        yield "suspended, so that no command can use it; `axosweep warm stop` ends it"
        return
    if not row["ready"]:
        yield "ends when no command uses it" if row["ending"] else "imports Axolotl"
        return
    if row["steps"]:
        yield f"{len(row['steps'])} at work"
    elif row.get("serving"):  # not reported by an older version
        yield "serves models"
    elif row["commands"]:
        yield "a command uses it"
    else:
        yield f"idle, ends in {max(row['idle_s'] - row['idle_for_s'], 0):.0f} s"
    yield f"{row['served']} served"
    if row["memory_mib"] is not None:
        yield f"{row['memory_mib']} MiB"


def _memory(pid: int) -> int | None:
    """Resident memory in MiB; None if the system does not tell."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) // 1024 for line in lines if line.startswith("VmRSS:")), None)
