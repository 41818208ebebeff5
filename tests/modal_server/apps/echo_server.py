"""Answers with each word of a request reversed, one after the other: `python -m echo_server PORT`, in a container."""

from __future__ import annotations

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.send_response(201)
        self.send_header("X-Path", self.path)
        self.end_headers()
        body = self.rfile.read(int(self.headers["Content-Length"]))
        for part in body.split():
            self.wfile.write(part[::-1] + b" ")
            self.wfile.flush()


if __name__ == "__main__":
    ThreadingHTTPServer(("0.0.0.0", int(sys.argv[1])), Handler).serve_forever()
