"""Connect and send a line: `python serving_peer_script.py PORT`. Started as another user."""

from __future__ import annotations

import socket
import sys

with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as line:
    line.sendall(b"GET\n")
    line.recv(1)
