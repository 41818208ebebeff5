"""The path of a sweep's report."""

from __future__ import annotations

from pathlib import Path

from modal_app.store.layout import Store


def report_path(store: Store, sweep: str) -> Path:
    """The default path."""
    return store.sweeps / sweep / "report.html"
