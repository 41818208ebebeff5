"""Locks on open files. One belongs to the open file: it is shared with every process that has a duplicate of the
descriptor, and ends with the last of them. Standard library."""

from __future__ import annotations

import fcntl


def lock(descriptor: int) -> None:
    """Take the lock exclusively; waits while others have it."""
    fcntl.flock(descriptor, fcntl.LOCK_EX)


def try_lock(descriptor: int, *, shared: bool = False) -> bool:
    """Take the lock exclusively, or `shared` with others; False if another process has it in a way that excludes
    this."""
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def unlock(descriptor: int) -> None:
    fcntl.flock(descriptor, fcntl.LOCK_UN)
