"""A web function. Runs in containers, and does not know the server."""

from __future__ import annotations

import subprocess
import sys

import modal

PORT = 8027
app = modal.App("web")
image = modal.Image.debian_slim().add_local_python_source("echo_server")


@app.function(image=image, max_containers=1)
@modal.concurrent(max_inputs=8)
@modal.web_server(PORT, startup_timeout=20)
def echo() -> None:
    subprocess.Popen([sys.executable, "-m", "echo_server", str(PORT)])
