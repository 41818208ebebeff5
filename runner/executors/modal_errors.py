"""What Modal's client raises -> what a user can do about it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import modal.exception

from runner.errors import SweepError


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Raises SweepError for what is a matter of the account or of the network."""
    try:
        yield
    except modal.exception.AuthError as error:
        raise SweepError(f"Modal did not let us in ({error}). Run `modal token new`.") from error
    except modal.exception.ConnectionError as error:
        raise SweepError(f"Modal cannot be reached ({error}). What was submitted goes on there.") from error
