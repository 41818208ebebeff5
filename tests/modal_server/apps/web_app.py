"""A web function. Runs in containers: it knows nothing of the server."""

from __future__ import annotations

import subprocess
import sys

import modal

PORT = 8027
app = modal.App("web")
image = modal.Image.debian_slim()
ECHO = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.send_response(201)
        self.send_header("X-Path", self.path)
        self.end_headers()
        body = self.rfile.read(int(self.headers["Content-Length"]))
        for part in body.split():
            self.wfile.write(part[::-1] + b" ")
            self.wfile.flush()
http.server.ThreadingHTTPServer(("0.0.0.0", %d), Handler).serve_forever()
"""


@app.function(image=image, max_containers=1)
@modal.concurrent(max_inputs=8)
@modal.web_server(PORT, startup_timeout=20)
def echo() -> None:
    subprocess.Popen([sys.executable, "-c", ECHO % PORT])
