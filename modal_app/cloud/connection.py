"""A connection that is lost in the middle of a request, as an error of Modal's own.

Modal's client repeats most requests, but the last error of one leaves it as it was: grpclib's StreamTerminatedError, or
an AttributeError, because grpclib has already taken the connection apart. To code that catches `modal.exception.Error`
they would be no errors of the service; `claims.is_live` would take a call that is still running for one that has ended.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import modal.exception
from grpclib.exceptions import StreamTerminatedError
from grpclib.protocol import Connection


@contextlib.contextmanager
def lost_connections() -> Iterator[None]:
    """Raises modal.exception.ConnectionError for each of these errors."""
    try:
        yield
    except StreamTerminatedError as error:
        raise modal.exception.ConnectionError(f"the connection was lost: {error}") from error
    except AttributeError as error:
        if not isinstance(error.obj, Connection):
            raise
        raise modal.exception.ConnectionError("the connection was lost") from error
