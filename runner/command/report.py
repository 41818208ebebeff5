"""`axosweep report`: write the HTML report, print its path, and open it on request."""

from __future__ import annotations

import webbrowser
from collections.abc import Sequence
from pathlib import Path

from modal_app.store.full_disk import full_disk
from modal_app.store.layout import Store
from runner.console import terminal
from runner.console.parser import Names, VerbParser
from runner.errors import SweepError
from runner.html_report.page import MARK, write_report
from runner.store.finding import sweep_in
from runner.store.mirror_age import stale
from runner.store.stores import stores

HEAD_BYTES = 4096


def parser() -> VerbParser:
    verb = VerbParser("report", description="A sweep as one HTML file that opens offline.")
    verb.add_sweep()
    where = "the file to write; report.html in the sweep's folder by default"
    verb.add("--out", metavar="FILE", names=[Names.FILE], help=where)
    verb.add("--open", action="store_true", help="show it in the browser")
    verb.add_store()
    return verb


def main(words: Sequence[str]) -> int:
    args = parser().read(words)
    found = sweep_in(stores(args.store), args.sweep)
    return report(found.store, found.sweep, args.out, show=args.open, store_arg=args.store)


def report(store: Store, sweep: str, file: str | None, *, show: bool, store_arg: str | None = None) -> int:
    """Raises SweepError for a file that cannot be written, or that exists and is not a report."""
    out = None if file is None else _checked(Path(file).expanduser().absolute())
    try:
        path = write_report(store, sweep, out)
    except OSError as error:
        why = full_disk(error) or f"{error.filename}: {error.strerror}."
        raise SweepError(f"The report cannot be written to {why}") from error
    terminal.result(f"Report: {path}")
    if old := stale(store, sweep, store_arg):
        terminal.message(old)
    if show and not webbrowser.open(path.as_uri()):
        terminal.message("No browser could be started.")
    return 0


def _checked(path: Path) -> Path:
    if path.is_dir():
        raise SweepError(f"--out {path} is a folder. Name a file: --out {path / 'report.html'}")
    if not path.parent.is_dir():
        raise SweepError(f"--out {path}: there is no folder {path.parent}.")
    if path.exists() and MARK not in path.read_bytes()[:HEAD_BYTES]:
        raise SweepError(f"--out {path} exists, and is not a report of axosweep. Name another file.")
    return path
