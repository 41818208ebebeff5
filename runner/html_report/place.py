"""Where a sweep's report lies."""

from __future__ import annotations

from pathlib import Path

from modal_app.store.layout import Store


def report_path(store: Store, sweep: str) -> Path:
    """When no other place is asked for."""
    return store.sweeps / sweep / "report.html"
