"""Removes what a Removal lists from a store on this machine, and finds the processes that work there.

It takes two steps: everything is renamed into a folder next to it, "done" files first, and then that folder is deleted.
So if it is killed in between, nothing incomplete looks complete, and `axosweep gc` finds the rest.
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
from modal_app.store.state import is_done
from modal_app.store.step import FOLLOW_UP_KINDS, StepKind, write_atomically
from runner.files.removal_plan import TRASH, AtWork, KeptRun, Kind, Removal, ToDelete
from runner.files.stock import STAYS, WORK, Stock
from runner.store.ledger import live_launchers, steps_after, sweeps_after
from runner.store.served import servers

MIRROR_STAYS = (*STAYS, "containers")
"""The costs of a removed run stay known."""


def busy_here(store: Store, stock: Stock) -> AtWork:
    """The process that works on a run, its follow-up steps or a dataset, or that serves the run; or a launch that has
    not started the run yet."""
    serving = servers(store)

    def at_work(key: str) -> str:
        folders = [store.folder(StepKind.PREPROCESS, key), *_steps(store, key)]
        if owner := next(filter(None, map(holder, folders)), None):
            return f"process {owner.pid} works on it; axosweep cancel {key} stops it"
        if server := serving.get(key):
            return f"process {server.pid} serves it; Ctrl-C there, or kill {server.pid}, stops it"
        run = stock.runs.get(key)
        if run is None:
            return ""
        if not run.finished and (launchers := [one for name in run.sweeps for one in live_launchers(store, name)]):
            return f"process {launchers[0].pid} runs its sweep"
        launchers = [one for name in run.sweeps for one in _launchers_after(store, name, key)]
        return f"process {launchers[0].pid} is about to start a follow-up step of it" if launchers else ""

    return at_work


def _launchers_after(store: Store, sweep: str, run: str) -> list[Owner]:
    """The launchers of follow-up steps of a run that are not done."""
    return [
        owner
        for name in sweeps_after(store, sweep)
        if any(step.run == run and not is_done(store.folder(step.kind, step.key)) for step in steps_after(store, name))
        for owner in live_launchers(store, name)
    ]


def remove_here(store: Store, removal: Removal) -> Removal:
    """Returns what was removed, and what was not, since a process has started to work on it meanwhile."""
    done, kept = list[ToDelete](), list[KeptRun]()
    for one in removal.to_delete:
        try:
            with _locked(store, one):
                trashes = _set_aside(store, one)
                for trash in trashes:
                    shutil.rmtree(trash)
        except AlreadyClaimed:
            kept.append(KeptRun(one.key, "a process has just started to work on it"))
        else:
            done.append(one)
    return Removal(tuple(done), tuple(kept))


def clear_mirror(mirror: Store, one: ToDelete) -> None:
    """Remove from a mirror what was removed from the Volumes, except the run's request and costs."""
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
    """Rename everything into trash folders, and return those."""
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
def _locked(store: Store, one: ToDelete) -> Iterator[None]:
    """Lock the folders of its steps. Raises AlreadyClaimed if another process works there."""
    with contextlib.ExitStack() as claims:
        for folder in _owners(store, one):
            claims.enter_context(claim(folder))
        yield


def _owners(store: Store, one: ToDelete) -> list[StepFolder]:
    """The folders of the steps that it belongs to."""
    top, name, *_ = (*one.paths[0].split("/"), "") if one.kind is Kind.LEFTOVER else ("", one.key)
    if one.kind in (Kind.RUN, Kind.CHECKPOINTS) or (top == "runs" and (store.runs / name).is_dir()):
        return _steps(store, name)
    if one.kind is Kind.DATASET or (top == "prepared" and name.endswith(WORK)):
        folder = store.folder(StepKind.PREPROCESS, name.removesuffix(WORK))
        return [folder] if folder.path.is_dir() else []
    return []


def _steps(store: Store, run: str) -> list[StepFolder]:
    """The folders of a run and of its follow-up steps, as far as they exist."""
    home = store.folder(StepKind.TRAIN, run)
    found = [home] if home.path.is_dir() else []
    for kind in FOLLOW_UP_KINDS:
        found += [store.folder(kind, f"{run}/{path.name}") for path in sorted((home.path / kind).glob("[!.]*"))]
    return found
