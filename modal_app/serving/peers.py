"""Which user of this machine is at the other end of a TCP connection, as Linux knows it. Standard library."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
"""One line for each socket: its own address, the other end's, and the user who has created it."""
MAPPED = bytes(10) + b"\xff\xff"
"""An IPv4 address as an IPv6 one begins so."""


def are_known() -> bool:
    """Whether this system says who is at the other end."""
    return TABLES[0].exists()


def is_own_user(client: tuple[str, int], server: tuple[str, int]) -> bool:
    """Whether a process of this user, or of root, is at the client's end of a connection within this machine."""
    return any(user in (0, os.geteuid()) for user in _users(_packed(client), _packed(server)))


def _users(client: tuple[bytes, int], server: tuple[bytes, int]) -> Iterator[int]:
    """The users of the sockets at the client's end. A socket that no process has open any more belongs to user 0 in
    these tables, and is left out.
    """
    for table in TABLES:
        lines = table.read_text().splitlines()[1:] if table.exists() else []
        for fields in map(str.split, lines):
            if int(fields[9]) and _address(fields[1]) == client and _address(fields[2]) == server:
                yield int(fields[7])


def _address(text: str) -> tuple[bytes, int]:
    """The address and port in `0100007F:1F90`: each four bytes of an address are a number in the machine's byte
    order."""
    words, port = text.split(":")
    numbers = [int(words[start : start + 8], 16) for start in range(0, len(words), 8)]
    return _plain(struct.pack(f"={len(numbers)}I", *numbers)), int(port, 16)


def _packed(address: tuple[str, int]) -> tuple[bytes, int]:
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    return _plain(socket.inet_pton(family, address[0])), address[1]


def _plain(packed: bytes) -> bytes:
    return packed.removeprefix(MAPPED)
