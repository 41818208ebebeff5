"""What Modal's client raises -> what a user can do about it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import modal.exception

from runner.errors import SweepError

TOKEN = "`modal token new`"


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Raises SweepError for what is a matter of the account or of the network."""
    try:
        yield
    except modal.exception.AuthError as error:
        said = str(error).rstrip(".")
        way_out = "" if TOKEN in said else f" Run {TOKEN}."  # of a missing token the client says it itself
        raise SweepError(f"Modal did not let us in: {said}.{way_out}") from error
    except modal.exception.ConnectionError as error:
        raise SweepError(f"Modal cannot be reached ({error}). What was submitted goes on there.") from error
