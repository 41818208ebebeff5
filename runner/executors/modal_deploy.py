"""Deploys an app to Modal, with the output of its image's build: the first build takes minutes, and may fail."""

from __future__ import annotations

import contextlib
import sys

import modal

from runner.console import terminal


def deploy(app: modal.App) -> None:
    """Raises what Modal raises. The output goes to stderr, since stdout may hold JSON."""
    terminal.message(f"Deploying {app.name}. The first build of its image takes a few minutes; later ones reuse it.")
    with contextlib.redirect_stdout(sys.stderr), modal.enable_output():
        app.deploy()
