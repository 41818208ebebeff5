"""The report that a sweep leaves when it ends: by a process of its own, so that nothing in it can fail the sweep."""

from __future__ import annotations

import subprocess
import sys

from modal_app.layout import Store
from runner.html_report.place import report_path

LONGEST_S = 60.0
"""A report takes a second; what takes longer is given up."""


def leave_report(store: Store, sweep: str) -> str:
    """Write the report of a sweep that has ended. Returns the line that says where it is, or why there is none."""
    command = [sys.executable, "-P", "-m", "runner", "report", sweep, "--store", str(store.root)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"No report was written: {error}"
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or ["it ended without a word"]
        return f"No report was written: {last[0]}"
    return f"Report: {report_path(store, sweep)}"
