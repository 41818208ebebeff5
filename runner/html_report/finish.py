"""The report that a sweep leaves when it ends, so that nothing in it can fail the sweep."""

from __future__ import annotations

from modal_app.store.layout import Store
from runner.errors import SweepError


def leave_report(store: Store, sweep: str) -> str:
    """Write the report of a sweep that has ended. Returns the line that says where it is, or why there is none."""
    from runner.html_report.page import write_report  # late: no run has waited for it

    try:
        return f"Report: {write_report(store, sweep)}"
    except OSError as error:
        return f"No report was written: {error.filename}: {error.strerror}."
    except SweepError as error:
        return f"No report was written: {error}"
    except Exception as error:  # the sweep's end: its runs are recorded, and its exit code speaks of them alone
        return f"No report was written: {error!r}. To see where: axosweep report {sweep} --store {store.root}"
