"""What is pulled of a run, and under which names: what was asked for -> files. Pure, over what there is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from modal_app.store.checkpoints import PREFIX
from runner.errors import SweepError, did_you_mean
from runner.files.pull import FileToPull
from runner.files.run_files import MADE, Files, Part, PartKind, checksums

WHATS = ("adapter", "model", "merged", "answers", "evaluation", "checkpoint", "checkpoints", "logs", "data", "all")
FOLLOW_UP_PARTS = {
    PartKind.MERGED: ("merged models", "has no merged model; `axosweep merge {}` makes it"),
    PartKind.ANSWERS: ("sets of answers", "has answered nothing yet; `axosweep infer {}` asks it"),
    PartKind.EVALUATION: ("evaluations", "has not been measured yet; `axosweep eval {}` does that"),
}
"""Of which there may be several: what they are called, and what is said where there is none."""
TAKEN_HOME = ("config.yml", "metrics.jsonl", "result.json", "run.json")
"""Beside the adapter, where nothing else was asked for."""
ALONE = (*MADE, PartKind.MERGED, PartKind.DATA)
"""Asked for by name, their files lie in the folder itself: it can be given to whatever loads a model."""


def choose(files: Files, parts: Sequence[Part], what: str | None, key: str, status: str) -> list[FileToPull]:
    """The files that `what` means, with their names below the folder they go to. Nothing asked means what one takes
    home: the adapter (or model), the config, the metrics.

    Raises SweepError for what the run does not have, or not yet; `status` says how it stands.
    """
    if what is not None:
        _refuse_unknown(what, parts)
    chosen = _chosen(parts, what, key, status)
    wanted = [one for part in chosen for one in _wanted(files, part, what)]
    if what is None:
        record = [one for part in parts if part.kind is PartKind.RECORD for one in _wanted(files, part, what)]
        wanted += [one for one in record if one.to in TAKEN_HOME]
    return wanted


def is_a_what(word: str) -> bool:
    return word in WHATS or word.startswith((PREFIX, *(f"{name}-" for name in FOLLOW_UP_PARTS)))


def _chosen(parts: Sequence[Part], what: str | None, key: str, status: str) -> list[Part]:
    named = {part.name: part for part in parts}
    whole = [part for part in parts if part.whole]
    checkpoints = [part for part in parts if part.kind is PartKind.CHECKPOINT]
    match what:
        case None | "adapter" | "model":
            made = [part for part in whole if part.kind in MADE]
            if made and what in (None, made[0].name):
                return made
            _refuse_not_made(what, parts, key, status)
        case "all":
            return [part for part in whole if part.kind is not PartKind.REST] or _nothing(key, status)
        case "checkpoint" | "checkpoints":
            found = [part for part in checkpoints if part.whole]
            return (found if what == "checkpoints" else found[-1:]) or _no_checkpoint(key, status, parts)
        case "merged" | "answers" | "evaluation":
            return _only(PartKind(what), whole, key)
        case _ if what in named and named[what].whole:
            return [named[what]]
        case _ if what.startswith(PREFIX) and what in named:
            _refuse(f"{what} of run {key} is not whole: it was being written when its worker died, or is now.")
        case _ if what.startswith(PREFIX):
            there = ", ".join(part.name for part in checkpoints if part.whole) or "none"
            _refuse(f"Run {key} has no {what}. It has: {there}.")
        case "data":
            _refuse(f"The dataset of run {key} is not there; the line that asked for the run prepares it again.")
    _refuse(f"Run {key} has no {what}; it is {status}. `axosweep ls {key}` shows what there is.")


def _only(kind: PartKind, whole: Sequence[Part], key: str) -> list[Part]:
    """The one of its kind."""
    found, (called, none) = [part for part in whole if part.kind is kind], FOLLOW_UP_PARTS[kind]
    if len(found) > 1:
        names = ", ".join(part.name for part in found)
        _refuse(f"Run {key} has {len(found)} {called}: {names}. Name one of them; `axosweep ls {key}` tells more.")
    return found or _refuse(f"Run {key} {none.format(key)}.")


def _wanted(files: Files, part: Part, what: str | None) -> list[FileToPull]:
    known = checksums(files, part)
    there = {entry.path for entry in part.files}
    if lacking := sorted(set(known) - there):
        raise SweepError(
            f"{files.place(part.folder)} lacks what its run has written down: {', '.join(lacking)}. It was removed or "
            "damaged since; nothing was fetched."
        )
    alone = what is None or (what != "all" and part.kind in ALONE)
    before = "" if alone or part.kind in (PartKind.RECORD, PartKind.LOGS) else f"{part.name}/"
    return [FileToPull(entry, f"{before}{part.named(entry)}", known.get(entry.path)) for entry in part.files]


def _refuse_unknown(what: str, parts: Sequence[Part]) -> None:
    if not is_a_what(what) and what not in {part.name for part in parts}:
        known = [*WHATS, *(part.name for part in parts if part.whole and part.name not in (PartKind.REST, *WHATS))]
        raise SweepError(f"There is no {what} to pull.{did_you_mean(what, known)} There is: {', '.join(known)}.")


def _refuse_not_made(what: str | None, parts: Sequence[Part], key: str, status: str) -> NoReturn:
    made = [part for part in parts if part.kind in MADE and part.whole]
    if made:
        _refuse(f"Run {key} has no {what}: what it has made is a whole {made[0].name}. Pull that.")
    checkpoints = any(part.kind is PartKind.CHECKPOINT and part.whole for part in parts)
    more = f" Its checkpoints are: axosweep pull {key} checkpoints DIR" if checkpoints else ""
    _refuse(f"Run {key} has not finished: it is {status}. There is no {what or 'adapter'} yet.{more}")


def _no_checkpoint(key: str, status: str, parts: Sequence[Part]) -> NoReturn:
    more = " Its adapter is there." if any(part.kind is PartKind.ADAPTER and part.whole for part in parts) else ""
    _refuse(f"Run {key} has no whole checkpoint; it is {status}.{more}")


def _nothing(key: str, status: str) -> NoReturn:
    _refuse(f"There is nothing of run {key} yet; it is {status}.")


def _refuse(message: str) -> NoReturn:
    raise SweepError(message)
