"""Finds what `gc` can remove, since nothing refers to it any more; decided from a store's stock. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import PurePosixPath

from modal_app.process.attempt import BUILD, DATASETS_CACHE
from modal_app.store.checkpoints import ASIDE
from modal_app.store.layout import ATTEMPT_PREFIX, COPYING, DRAFT
from runner.files.removal_plan import (
    TRASH,
    AtWork,
    KeptRun,
    Kind,
    Removal,
    ToDelete,
    bytes_of,
    folders_named,
    last_written,
)
from runner.files.run_files import Entry
from runner.files.stock import WORK, NeededInputs, Stock

CACHES = (DATASETS_CACHE, BUILD)
DAY_S = 86400.0
"""A file that is being fetched or copied now was written within the last day."""
_PARTIAL_INPUT = re.compile(r"^\..+\.\d+$")
"""The name, next to the inputs, of one that is being copied there; it ends in the id of the copying process."""
_FETCHED = {"cache/from": 4, "cache/push": 3}
"""Of a mirror: the folders of start checkpoints and models to push, and how many parts the path of each download has.
"""


def garbage(stock: Stock, inputs: NeededInputs, at_work: AtWork, *, before: float | None, now: float) -> Removal:
    """What nothing refers to any more; of datasets and inputs, none if a file that may refer to them cannot be read.
    `now`: Unix seconds."""
    needed = {one.data_key for one in stock.kept}
    unread = (*stock.unread, *inputs.unread)
    to_delete = [] if unread else [*_datasets(stock, needed, at_work)]
    to_delete += [
        ToDelete(Kind.INPUT, name, _paths_of_input(name, entries), bytes_of(entries), "no run reads it")
        for name, entries in stock.inputs.items()
        if name not in inputs.names and not unread
    ]
    to_delete += _leftovers(stock, at_work)
    to_delete += _partial_inputs(stock.others, now)
    files = [*stock.others, *(entry for group in _groups(stock) for entry in group)]
    if before is not None:
        to_delete = [one for one in to_delete if last_written(_of(one, files)) < before]
    why = "it cannot be read, so no dataset or input is removed"
    return Removal(tuple(to_delete), tuple(KeptRun(path, why) for path in unread))


def _paths_of_input(name: str, entries: Iterable[Entry]) -> tuple[str, ...]:
    """Itself, which may be a link and then has no entry, and its note."""
    tops = ("/".join(PurePosixPath(entry.path).parts[:2]) for entry in entries)
    return tuple(dict.fromkeys([f"inputs/{name}", *tops]))


def _datasets(stock: Stock, needed: Collection[str], at_work: AtWork) -> Iterable[ToDelete]:
    keys = dict.fromkeys(name.removesuffix(WORK) for name in stock.prepared)
    for key in keys:
        folders = [name for name in (key, f"{key}{WORK}") if name in stock.prepared]
        if key not in needed and not at_work(key):
            entries = [entry for name in folders for entry in stock.prepared[name]]
            note = "no run reads it" if stock.is_ready(key) else "no run reads it; never finished"
            yield ToDelete(Kind.DATASET, key, tuple(f"prepared/{name}" for name in folders), bytes_of(entries), note)


def _leftovers(stock: Stock, at_work: AtWork) -> Iterable[ToDelete]:
    """Broken checkpoints, caches of dead attempts and interrupted removals, of runs and datasets without a process."""
    needed = {one.data_key for one in stock.kept}
    of = [(key, one.files) for key, one in stock.runs.items()]
    of += [(name.removesuffix(WORK), entries) for name, entries in stock.prepared.items() if name.endswith(WORK)]
    for key, entries in of:
        if (key in stock.runs or key in needed) and not at_work(key):
            finished = stock.runs[key].finished if key in stock.runs else stock.is_ready(key)
            is_left = _is_left_by_a_finished_step if finished else _is_left
            yield from (_leftover(path, size) for path, size in folders_named(entries, is_left).items())
    found = folders_named(stock.others, lambda path: path.name.startswith(TRASH))
    yield from (_leftover(path, size) for path, size in found.items())


def _partial_inputs(others: Iterable[Entry], now: float) -> Iterable[ToDelete]:
    """Unfinished copies of inputs, left by a killed launch."""
    of_inputs = [
        one for one in others if one.path.startswith("inputs/") and _PARTIAL_INPUT.match(one.path.split("/")[1])
    ]
    return _old(of_inputs, 2, now - DAY_S, "an unfinished copy of an input")


def old_downloads(cache: Iterable[Entry], *, before: float | None, now: float) -> Removal:
    """Downloads in a mirror's cache that are older than a day. They are fetched again when they are needed."""
    entries = list(cache)
    limit = now - DAY_S if before is None else min(before, now - DAY_S)
    return Removal(
        tuple(
            one
            for top, parts in _FETCHED.items()
            for one in _old(
                [entry for entry in entries if entry.path.startswith(f"{top}/")], parts, limit, "fetched from Modal"
            )
        )
    )


def stale_mirror(stock: Stock, *, before: float | None) -> Removal:
    """A mirror's own files that are no longer needed: copies of runs and datasets that belong to no sweep in the
    mirror."""
    if stock.unread:
        return Removal(())
    needed = {one.data_key for one in stock.runs.values() if one.sweeps}
    runs = [one for one in stock.runs.values() if not one.sweeps]
    data = [(name, one) for name, one in stock.prepared.items() if name.removesuffix(WORK) not in needed]
    found = [(one.home, one.files) for one in runs] + [(f"prepared/{name}", entries) for name, entries in data]
    old = [(path, entries) for path, entries in found if before is None or last_written(entries) < before]
    note = "a copy that belongs to no sweep here"
    return Removal(tuple(ToDelete(Kind.LEFTOVER, path, (path,), bytes_of(entries), note) for path, entries in old))


def _old(entries: Iterable[Entry], parts: int, limit: float, note: str) -> Iterable[ToDelete]:
    """Entries that were last written before `limit`, grouped by the first `parts` parts of their paths."""
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault("/".join(entry.path.split("/")[:parts]), []).append(entry)
    for path, group in groups.items():
        if last_written(group) < limit:
            yield ToDelete(Kind.LEFTOVER, path, (path,), bytes_of(group), note)


def _is_left(path: PurePosixPath) -> bool:
    in_attempt = path.parent.name.startswith(ATTEMPT_PREFIX)
    return path.name.startswith((ASIDE, TRASH)) or (in_attempt and path.name in (*CACHES, COPYING))


def _is_left_by_a_finished_step(path: PurePosixPath) -> bool:
    in_attempt = path.parent.name.startswith(ATTEMPT_PREFIX)
    return _is_left(path) or (in_attempt and path.name == DRAFT)


def _leftover(path: str, size: int) -> ToDelete:
    return ToDelete(Kind.LEFTOVER, path, (path,), size, _what_is_left(PurePosixPath(path).name))


def _what_is_left(name: str) -> str:
    if name in CACHES:
        return "a dead attempt's cache"
    if name == DRAFT:
        return "an attempt's files that were not published"
    return "an incomplete checkpoint" if name.startswith((ASIDE, COPYING)) else "an interrupted removal"


def _groups(stock: Stock) -> Iterable[Sequence[Entry]]:
    yield from stock.prepared.values()
    yield from stock.inputs.values()
    yield from (one.files for one in stock.runs.values())


def _of(one: ToDelete, files: Iterable[Entry]) -> list[Entry]:
    return [entry for entry in files if any(f"{entry.path}/".startswith(f"{path}/") for path in one.paths)]
