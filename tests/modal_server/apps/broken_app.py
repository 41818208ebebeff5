"""Cannot be imported in a container."""

from __future__ import annotations

import os

import modal

app = modal.App("broken")
if os.environ.get("MODAL_IS_REMOTE"):
    import not_installed_there  # type: ignore[import-not-found]  # noqa: F401


@app.function()
def f() -> None: ...
