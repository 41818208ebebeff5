"""Turns errors of Modal's client into messages that say what a user can do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import modal.exception

from modal_app.cloud.connection import lost_connections
from runner.errors import SweepError

TOKEN = "`modal token new`"
UNREACHED = (
    modal.exception.ConnectionError,
    modal.exception.InternalError,
    modal.exception.ResourceExhaustedError,
    modal.exception.ServiceError,
)
"""Modal could not or would not answer."""


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Raises SweepError for errors of the account or the network."""
    try:
        with lost_connections():
            yield
    except modal.exception.AuthError as error:
        reason = str(error).rstrip(".")
        way_out = "" if TOKEN in reason else f" Run {TOKEN}."  # for a missing token, the client's message has it
        raise SweepError(f"Modal refused the login: {reason}.{way_out}") from error
    except UNREACHED as error:
        raise SweepError(f"Modal cannot be reached ({error}). Submitted work continues there.") from error
