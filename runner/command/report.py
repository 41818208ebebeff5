"""`axosweep report`: write the page where it was asked for, say where it is, and show it."""

from __future__ import annotations

import webbrowser
from pathlib import Path

from modal_app.store.layout import Store
from runner.console import terminal
from runner.errors import SweepError
from runner.html_report.page import MARK, write_report
from runner.store.mirror_age import stale

HEAD_BYTES = 4096


def report(store: Store, sweep: str, asked: str | None, *, show: bool) -> int:
    """Raises SweepError for no such sweep, and for a place that cannot be written or holds something else."""
    out = None if asked is None else _checked(Path(asked).expanduser().absolute())
    try:
        path = write_report(store, sweep, out)
    except OSError as error:
        raise SweepError(f"The report cannot be written to {error.filename}: {error.strerror}.") from error
    terminal.result(f"Report: {path}")
    if old := stale(store, sweep):
        terminal.message(old)
    if show and not webbrowser.open(path.as_uri()):
        terminal.message("No browser could be started here.")
    return 0


def _checked(path: Path) -> Path:
    if path.is_dir():
        raise SweepError(f"--out {path} is a folder. Name a file: --out {path / 'report.html'}")
    if not path.parent.is_dir():
        raise SweepError(f"--out {path}: there is no folder {path.parent}.")
    if path.exists() and MARK not in path.read_bytes()[:HEAD_BYTES]:
        raise SweepError(f"--out {path} is there already, and is no report of axosweep's. Name another file.")
    return path
