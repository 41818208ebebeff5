"""Returns its version: a test deploys copies with other text."""

from __future__ import annotations

import modal

app = modal.App("versioned")


@app.function(max_containers=1)
def tell() -> str:
    return "the first code"
