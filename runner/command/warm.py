"""`axosweep warm`: shows or ends the preloaded trainers that wait for the next command."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from modal_app.warm.address import Note
from runner.console import terminal
from runner.console.parser import VerbParser
from runner.console.print_json import print_json
from runner.console.question import confirm, is_interactive
from runner.executors import warm_server
from runner.store.stores import open_store

ENDS_WITHIN_S = 10.0


@dataclass(frozen=True, slots=True)
class StepAtWork:
    kind: str
    key: str
    pid: int


@dataclass(frozen=True, slots=True)
class PreloadedTrainer:
    """A process that has imported Axolotl, or imports it. Until it is ready, what only the process itself knows is
    null."""

    pid: int
    store: str
    since: float
    """Unix seconds."""
    memory_mib: int | None
    """Null if the system does not tell."""
    suspended: bool
    ready: bool
    """Whether it has imported Axolotl."""
    ending: bool
    """Whether it takes no more commands."""
    ready_s: float | None
    """Seconds that its imports took."""
    idle_s: float | None
    """Seconds without work after which it ends."""
    idle_for_s: float | None
    served: int | None
    """Steps so far."""
    commands: int | None
    """Those that use it now."""
    steps: tuple[StepAtWork, ...]
    serving: tuple[int, ...]
    """Processes that serve models."""


@dataclass(frozen=True, slots=True)
class PreloadedTrainers:
    """What `warm --json` prints."""

    trainers: tuple[PreloadedTrainer, ...]


@dataclass(frozen=True, slots=True)
class EndedTrainer:
    pid: int
    store: str
    ended: bool
    """False while a command uses it; then it ends after that."""


@dataclass(frozen=True, slots=True)
class EndedTrainers:
    """What `warm stop --json` prints."""

    trainers: tuple[EndedTrainer, ...]


def parser() -> VerbParser:
    about = "Show or end the preloaded trainers that wait for the next command."
    verb = VerbParser("warm", description=about)
    verb.add("what", nargs="?", choices=("status", "stop"), default="status")
    verb.add("--all", action="store_true", help="the preloaded trainers of all your stores; stop asks first")
    verb.add("--yes", action="store_true", help="with stop --all: do not ask")
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
        print_json(PreloadedTrainers(tuple(rows)))
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
        rows.append(EndedTrainer(note.owner.pid, note.store, ended))
    if as_json:
        print_json(EndedTrainers(tuple(rows)))
        return 0
    for row in rows:
        how = "ended" if row.ended else "will end when no command uses it"
        terminal.result(f"{row.pid}  {row.store}: {how}.")
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


def _row(note: Note) -> PreloadedTrainer:
    status = warm_server.status(note)
    known = status or {}
    return PreloadedTrainer(
        pid=note.owner.pid,
        store=note.store,
        since=known.get("since", note.owner.at),
        memory_mib=_memory(note.owner.pid),
        suspended=warm_server.process_state(note.owner.pid) == "T",
        ready=status is not None,
        ending=known.get("ending", not note.address.socket.exists()),
        ready_s=known.get("ready_s"),
        idle_s=known.get("idle_s"),
        idle_for_s=known.get("idle_for_s"),
        served=known.get("served"),
        commands=known.get("commands"),
        steps=tuple(StepAtWork(one["kind"], one["key"], one["pid"]) for one in known.get("steps", ())),
        serving=tuple(known.get("serving", ())),  # not reported by an older version
    )


def _line(row: PreloadedTrainer) -> str:
    return f"{row.pid}  {row.store}: " + ", ".join(_words(row))


def _words(row: PreloadedTrainer) -> Iterator[str]:
    if row.suspended:
        yield "suspended, so that no command can use it; `axosweep warm stop` ends it"
        return
    if not row.ready:
        yield "ends when no command uses it" if row.ending else "imports Axolotl"
        return
    if row.steps:
        yield f"{len(row.steps)} at work"
    elif row.serving:
        yield "serves models"
    elif row.commands:
        yield "a command uses it"
    else:
        yield f"idle, ends in {max((row.idle_s or 0.0) - (row.idle_for_s or 0.0), 0):.0f} s"
    yield f"{row.served} served"
    if row.memory_mib is not None:
        yield f"{row.memory_mib} MiB"


def _memory(pid: int) -> int | None:
    """Resident memory in MiB; None if the system does not report it."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) // 1024 for line in lines if line.startswith("VmRSS:")), None)
