"""Writes the report when a sweep ends, so that no error in it can fail the sweep."""

from __future__ import annotations

from modal_app.store.full_disk import full_disk
from modal_app.store.layout import Store
from runner.errors import SweepError


def leave_report(store: Store, sweep: str) -> str:
    """Write the report of a sweep that has ended. Returns a line with its path, or why it was not written."""
    from runner.html_report.page import write_report  # imported late, so that no run waits for it

    try:
        return f"Report: {write_report(store, sweep)}"
    except OSError as error:
        return f"No report was written: {full_disk(error) or f'{error.filename}: {error.strerror}.'}"
    except SweepError as error:
        return f"No report was written: {error}"
    except Exception as error:  # the runs are recorded, and the exit code depends on them alone
        return f"No report was written: {error!r}. To see the traceback: axosweep report {sweep} --store {store.root}"
