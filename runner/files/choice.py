"""Chooses the files that `pull` fetches of a run, and their names. Pure, from the parts that the run has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from modal_app.store.checkpoints import PREFIX
from runner.errors import SweepError, did_you_mean
from runner.files.pull import FileToPull
from runner.files.run_files import TRAINED, Files, Part, PartKind, checksums

WHATS = ("adapter", "model", "merged", "answers", "evaluation", "checkpoint", "checkpoints", "logs", "data", "all")
FOLLOW_UP_PARTS = {
    PartKind.MERGED: ("merged models", "has no merged model; `axosweep merge {}` creates one"),
    PartKind.ANSWERS: ("sets of answers", "has no answers yet; `axosweep infer {}` creates some"),
    PartKind.EVALUATION: ("evaluations", "has no evaluation yet; `axosweep eval {}` creates one"),
}
"""Parts of which a run may have several: their plural, and the end of the message when there is none."""
DEFAULT_RECORDS = ("config.yml", "metrics.jsonl", "result.json", "run.json")
"""Pulled with the adapter when no part was named."""
ALONE = (*TRAINED, PartKind.MERGED, PartKind.DATA)
"""If one of these is named, its files go into the folder itself, so that any program can load the model from it."""


def choose(files: Files, parts: Sequence[Part], what: str | None, key: str, status: str) -> list[FileToPull]:
    """The files of the part `what`, with their names below the target folder. None means the adapter (or model), the
    config and the metrics.

    Raises SweepError for a part that the run does not have, or not yet; the message names its `status`.
    """
    if what is not None:
        _refuse_unknown(what, parts)
    chosen = _chosen(parts, what, key, status)
    wanted = [one for part in chosen for one in _wanted(files, part, what)]
    if what is None:
        record = [one for part in parts if part.kind is PartKind.RECORD for one in _wanted(files, part, what)]
        wanted += [one for one in record if one.to in DEFAULT_RECORDS]
    return wanted


def is_a_what(word: str) -> bool:
    return word in WHATS or word.startswith((PREFIX, *(f"{name}-" for name in FOLLOW_UP_PARTS)))


def _chosen(parts: Sequence[Part], what: str | None, key: str, status: str) -> list[Part]:
    named = {part.name: part for part in parts}
    complete = [part for part in parts if part.is_complete]
    checkpoints = [part for part in parts if part.kind is PartKind.CHECKPOINT]
    match what:
        case None | "adapter" | "model":
            trained = [part for part in complete if part.kind in TRAINED]
            if trained and what in (None, trained[0].name):
                return trained
            _refuse_not_made(what, parts, key, status)
        case "all":
            return [part for part in complete if part.kind is not PartKind.REST] or _nothing(key, status)
        case "checkpoint" | "checkpoints":
            found = [part for part in checkpoints if part.is_complete]
            return (found if what == "checkpoints" else found[-1:]) or _no_checkpoint(key, status, parts)
        case "merged" | "answers" | "evaluation":
            return _only(PartKind(what), complete, key)
        case _ if what in named and named[what].is_complete:
            return [named[what]]
        case _ if what.startswith(PREFIX) and what in named:
            _refuse(f"{what} of run {key} is not complete: its worker died while writing it, or is still writing it.")
        case _ if what.startswith(PREFIX):
            there = ", ".join(part.name for part in checkpoints if part.is_complete) or "none"
            _refuse(f"Run {key} has no {what}. It has: {there}.")
        case "data":
            _refuse(f"The dataset of run {key} does not exist here; launching the sweep again prepares it.")
    _refuse(f"Run {key} has no {what}; it is {status}. `axosweep ls {key}` lists what it has.")


def _only(kind: PartKind, complete: Sequence[Part], key: str) -> list[Part]:
    """The only part of this kind."""
    found, (plural, none) = [part for part in complete if part.kind is kind], FOLLOW_UP_PARTS[kind]
    if len(found) > 1:
        names = ", ".join(part.name for part in found)
        _refuse(f"Run {key} has {len(found)} {plural}: {names}. Name one; `axosweep ls {key}` describes them.")
    return found or _refuse(f"Run {key} {none.format(key)}.")


def _wanted(files: Files, part: Part, what: str | None) -> list[FileToPull]:
    known = checksums(files, part)
    there = {entry.path for entry in part.files}
    if lacking := sorted(set(known) - there):
        raise SweepError(
            f"{files.place(part.folder)} lacks files that its run has recorded: {', '.join(lacking)}. They were "
            "removed later. Nothing was fetched."
        )
    alone = what is None or (what != "all" and part.kind in ALONE)
    before = "" if alone or part.kind in (PartKind.RECORD, PartKind.LOGS) else f"{part.name}/"
    return [FileToPull(entry, f"{before}{part.named(entry)}", known.get(entry.path)) for entry in part.files]


def _refuse_unknown(what: str, parts: Sequence[Part]) -> None:
    if not is_a_what(what) and what not in {part.name for part in parts}:
        known = [
            *WHATS,
            *(part.name for part in parts if part.is_complete and part.name not in (PartKind.REST, *WHATS)),
        ]
        raise SweepError(f"`pull` knows no {what}.{did_you_mean(what, known)} It knows: {', '.join(known)}.")


def _refuse_not_made(what: str | None, parts: Sequence[Part], key: str, status: str) -> NoReturn:
    trained = [part for part in parts if part.kind in TRAINED and part.is_complete]
    if trained:
        _refuse(f"Run {key} has no {what}: it trained a complete {trained[0].name}. Pull that.")
    checkpoints = any(part.kind is PartKind.CHECKPOINT and part.is_complete for part in parts)
    more = f" It has checkpoints: axosweep pull {key} checkpoints DIR" if checkpoints else ""
    _refuse(f"Run {key} has not finished: it is {status}. It has no {what or 'adapter'} yet.{more}")


def _no_checkpoint(key: str, status: str, parts: Sequence[Part]) -> NoReturn:
    more = " It has its adapter." if any(part.kind is PartKind.ADAPTER and part.is_complete for part in parts) else ""
    _refuse(f"Run {key} has no complete checkpoint; it is {status}.{more}")


def _nothing(key: str, status: str) -> NoReturn:
    _refuse(f"Run {key} has no files yet; it is {status}.")


def _refuse(message: str) -> NoReturn:
    raise SweepError(message)
