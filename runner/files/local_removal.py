"""Removes from a store of this machine what a Removal names, and tells who works there.

In two moves: everything is renamed into a folder beside it first, what says "done" before the rest, and deleted then.
Killed in between, nothing that is half there looks whole, and `axosweep gc` finds what was left.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from modal_app.store.claim import AlreadyClaimed, Owner, claim, holder
from modal_app.store.layout import REMOVED, StepFolder, Store
from modal_app.store.step import FOLLOW_UP_KINDS, StepKind, write_atomically
from runner.files.removal_plan import TRASH, AtWork, KeptRun, Kind, Removal, ToDelete
from runner.files.stock import STAYS, WORK, Stock
from runner.store.ledger import live_launchers, steps_after, sweeps_after
from runner.store.served import servers

MIRROR_STAYS = (*STAYS, "containers")
"""What was paid for a run stays known."""


def busy_here(store: Store, stock: Stock) -> AtWork:
    """Who works on a run, on what comes after it, or on a dataset, or serves it; and a launch that has not come to a
    run yet."""
    serving = servers(store)

    def at_work(key: str) -> str:
        folders = [store.folder(StepKind.PREPROCESS, key), *_steps(store, key)]
        if owner := next(filter(None, map(holder, folders)), None):
            return f"process {owner.pid} works on it; axosweep cancel {key} ends that"
        if server := serving.get(key):
            return f"process {server.pid} serves it; Ctrl-C there, or kill {server.pid}, ends that"
        run = stock.runs.get(key)
        if run is None:
            return ""
        if not run.finished and (launchers := [one for name in run.sweeps for one in live_launchers(store, name)]):
            return f"its sweep is being run by process {launchers[0].pid}"
        launchers = [one for name in run.sweeps for one in _launchers_after(store, name, key)]
        return f"process {launchers[0].pid} has asked for something of it that has not begun" if launchers else ""

    return at_work


def _launchers_after(store: Store, sweep: str, run: str) -> list[Owner]:
    """Those of what comes after a run and is not done."""
    return [
        owner
        for name in sweeps_after(store, sweep)
        if any(
            step.run == run and not store.folder(step.kind, step.key).done.exists() for step in steps_after(store, name)
        )
        for owner in live_launchers(store, name)
    ]


def remove_here(store: Store, removal: Removal) -> Removal:
    """Returns what was removed; what somebody has begun to work on meanwhile is kept."""
    done, kept = list[ToDelete](), list[KeptRun]()
    for one in removal.to_delete:
        try:
            with _held(store, one):
                trashes = _set_aside(store, one)
                for trash in trashes:
                    shutil.rmtree(trash)
        except AlreadyClaimed:
            kept.append(KeptRun(one.key, "somebody has begun to work on it meanwhile"))
        else:
            done.append(one)
    return Removal(tuple(done), tuple(kept))


def clear_mirror(mirror: Store, one: ToDelete) -> None:
    """Forget in a mirror what was removed where it really lay, but for what was asked and what was paid."""
    home = mirror.runs / one.key if one.kind is Kind.RUN else mirror.prepared / one.key
    if one.kind in (Kind.RUN, Kind.DATASET) and home.is_dir():
        stays = MIRROR_STAYS if one.kind is Kind.RUN else ()
        names = sorted((path.name for path in home.iterdir() if path.name not in stays), key=_done_first)
        paths = tuple((home / name).relative_to(mirror.root).as_posix() for name in names)
        for trash in _set_aside(mirror, ToDelete(one.kind, one.key, paths, one.bytes)):
            shutil.rmtree(trash)


def removal_note(size: int) -> str:
    """The text of removed.json."""
    return json.dumps({"at": time.time(), "bytes": size})


def _done_first(name: str) -> tuple[bool, str]:
    return name not in ("result.json", "manifest.json"), name


def _set_aside(store: Store, one: ToDelete) -> list[Path]:
    """Rename, and return where to."""
    if one.kind is Kind.RUN:
        write_atomically(store.runs / one.key / REMOVED, removal_note(one.bytes))
    token, trashes = secrets.token_hex(4), dict[Path, None]()
    for name in one.paths:
        path = store.root / name
        if os.path.lexists(path):
            trash = path.parent / f"{TRASH}{token}"
            trash.mkdir(exist_ok=True)
            trashes[trash] = None
            path.rename(trash / path.name)
    return list(trashes)


@contextlib.contextmanager
def _held(store: Store, one: ToDelete) -> Iterator[None]:
    """Nobody else works on it. Raises AlreadyClaimed."""
    with contextlib.ExitStack() as held:
        for folder in _owners(store, one):
            held.enter_context(claim(folder))
        yield


def _owners(store: Store, one: ToDelete) -> list[StepFolder]:
    """The folders of the steps that something belongs to."""
    top, name, *_ = (*one.paths[0].split("/"), "") if one.kind is Kind.LEFTOVER else ("", one.key)
    if one.kind in (Kind.RUN, Kind.CHECKPOINTS) or (top == "runs" and (store.runs / name).is_dir()):
        return _steps(store, name)
    if one.kind is Kind.DATASET or (top == "prepared" and name.endswith(WORK)):
        folder = store.folder(StepKind.PREPROCESS, name.removesuffix(WORK))
        return [folder] if folder.path.is_dir() else []
    return []


def _steps(store: Store, run: str) -> list[StepFolder]:
    """Of a run: its own folder and those of what comes after it. None for one that has no folder."""
    home = store.folder(StepKind.TRAIN, run)
    found = [home] if home.path.is_dir() else []
    for kind in FOLLOW_UP_KINDS:
        found += [store.folder(kind, f"{run}/{path.name}") for path in sorted((home.path / kind).glob("[!.]*"))]
    return found
