"""Tells errors of this machine's files and disks from those of the connection to W&B, which are OSErrors, too."""

from __future__ import annotations

from modal_app.store.full_disk import full_disk


def problem_here(error: BaseException) -> str:
    """A sentence about a full disk, or about a file that cannot be read or written; empty for another error.

    >>> problem_here(PermissionError(13, "Permission denied", "/store/metrics.jsonl"))
    '/store/metrics.jsonl: Permission denied.'
    """
    if full := full_disk(error):
        return full
    if isinstance(error, OSError) and error.filename is not None:  # that of a connection names no file
        return f"{error.filename}: {error.strerror}."
    return ""
