"""`axosweep pull`: copies files of a run into a folder of the user's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from modal_app.store.layout import Store, parts_of_key
from modal_app.store.trained_weights import TrainedWeights
from runner.console import terminal
from runner.console.numbers import counted
from runner.console.parser import Names, VerbParser
from runner.console.print_json import print_json
from runner.console.transfer import progress, size_text
from runner.errors import SweepError
from runner.files.choice import WHATS, choose, is_a_what
from runner.files.places import chosen_run, files_of, state_of
from runner.files.pull import JOURNAL, FileToPull, PullResult, pull
from runner.files.run_files import Part, PartKind, parts_of
from runner.follow_up.steps import merge_step
from runner.follow_up.subjects import subjects
from runner.store.run_state import status_text
from runner.store.stores import stores


@dataclass(frozen=True, slots=True)
class PulledFiles:
    """What `pull --json` prints."""

    run: str
    folder: str
    """Where the files are now."""
    place: str
    """Where they came from."""
    fetched: tuple[str, ...]
    here: tuple[str, ...]
    """Files that were complete and current already."""
    bytes: int
    """Fetched by this command."""
    unchecked: tuple[str, ...]
    """Files for which no checksum was recorded."""


def parser() -> VerbParser:
    verb = VerbParser(
        "pull",
        usage="axosweep pull RUN [WHAT] DIR [--force] [--store STORE] [--json]",
        description="Copy files of a run into a folder, from this machine or from Modal.",
    )
    verb.add("run", names=[Names.RUN], help="a run's key, or the beginning of it; a sweep means its best run")
    parts = f"{', '.join(WHATS)} or checkpoint-N; by default the adapter with its config and metrics"
    verb.add("where", nargs="*", metavar="WHAT DIR", names=[*WHATS, Names.FOLDER], help=f"WHAT is {parts}")
    verb.add_argument("--force", action="store_true", help="overwrite other files of the same names")
    verb.add_store()
    verb.add_json()
    return verb


def main(words: Sequence[str]) -> int:
    args = parser().read(words)
    what, folder = _what_and_folder(args.run, args.where)
    store, run = chosen_run(stores(args.store), args.run)
    files = files_of(store, run.key)
    there = parts_of(files, run.key, run.data_key)
    if what == "merged":
        what = _own_merge(store, run.key, there)
    state = state_of(store, run)
    wanted = choose(files, there, what, run.key, status_text(state.status, state.reason, state.rung))
    with progress(sum(one.entry.size for one in wanted), "pull") as watch:
        done = pull(files, wanted, folder, force=args.force, watch=watch)
    if args.json:
        place = files.place(f"runs/{run.key}")
        lists = tuple(done.fetched), tuple(done.here), done.bytes, tuple(done.unchecked)
        print_json(PulledFiles(run.key, str(folder), place, *lists))
    else:
        _print_result(run.key, wanted, folder, done)
    return 0


def _what_and_folder(run: str, words: Sequence[str]) -> tuple[str | None, Path]:
    """Raises SweepError without a folder, also for a single word that may not be meant as one."""
    match words:
        case [what, folder]:
            return what, Path(folder).expanduser().absolute()
        case [word] if is_a_what(word):
            raise SweepError(f"The folder is missing: axosweep pull {run} {word} DIR. A folder of that name: ./{word}")
        case []:
            raise SweepError(f"The folder is missing: axosweep pull {run} DIR")
        case [folder]:
            return None, Path(folder).expanduser().absolute()
    raise SweepError(f"axosweep pull takes RUN, WHAT and one DIR; these are too many words: {' '.join(words)}")


def _own_merge(store: Store, key: str, parts: Sequence[Part]) -> str:
    """If there are several merges, the one that `axosweep merge` would now make from the run's own adapter."""
    merged = [part for part in parts if part.is_complete and part.kind is PartKind.MERGED]
    if len(merged) < 2:
        return "merged"
    (subject,) = subjects([store], key)
    if subject.leaves is TrainedWeights.MODEL:
        return "merged"
    _, own = parts_of_key(merge_step(subject).step.key)
    return next((part.name for part in merged if part.own == own), "merged")


def _print_result(key: str, wanted: Sequence[FileToPull], folder: Path, done: PullResult) -> None:
    checked = len(wanted) - len(done.unchecked)
    here = f"{len(done.here)} of {counted(len(wanted), 'file')} were here already. " if done.here else ""
    lines = [
        f"{key}: {counted(len(done.fetched), 'file')} fetched, {size_text(done.bytes)}, to {folder}",
        f"{here}{checked} checked against the run's own sha256; {JOURNAL} in that folder lists the sha256 of all.",
    ]
    for line in lines:
        terminal.result(line)
