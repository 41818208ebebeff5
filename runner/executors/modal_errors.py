"""Turns errors of Modal's client into messages: Modal's own words, and what a user can do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import aiohttp
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
AGAIN = "Submitted work continues there. The same command continues where this one ended."
_WAYS_OUT: tuple[tuple[type[modal.exception.Error], str, str], ...] = (
    (
        modal.exception.PermissionDeniedError,
        "Modal does not permit this",
        "The workspace or environment of the token is not allowed to do this: `modal profile current` and `modal "
        "token info` show which; MODAL_PROFILE and MODAL_ENVIRONMENT choose another.",
    ),
    (
        modal.exception.ResourceExhaustedError,
        "A limit of the Modal workspace is reached",
        "Spend limits and quotas are on https://modal.com/settings (Usage and billing); raise the limit there, or "
        f"request less. {AGAIN}",
    ),
    (
        modal.exception.ImageBuildError,
        "Modal could not build the image",
        "The output of the build is above. executor.modal.image, apt, packages and kernels decide what is in it; no "
        "GPU was rented.",
    ),
    (
        modal.exception.NotFoundError,
        "Modal has not found it",
        "It may have been deleted or stopped, or be in another workspace or environment (`modal profile current`, "
        "MODAL_ENVIRONMENT). The same command deploys the app again if it is missing.",
    ),
    (
        modal.exception.ConflictError,
        "Modal refused the request in the present state",
        "If the app was stopped, the same command deploys it again.",
    ),
    (
        modal.exception.InvalidError,
        "Modal refused the request",
        "These keys set what a container requests: gpu, gpu.count, executor.modal.cpu and memory_gib (for each "
        "GPU), executor.modal.timeout_hours.",
    ),
    (modal.exception.RequestSizeError, "Modal refused the request", "Split the sweep into smaller ones."),
    (
        modal.exception.VersionError,
        "Modal no longer serves this version of its client",
        "Install a newer axosweep, or only a newer client: `pip install --upgrade modal`.",
    ),
    (modal.exception.UnimplementedError, "Modal does not offer this", "Install a newer axosweep or Modal client."),
    (modal.exception.Error, "Modal reports an error", AGAIN),
)
"""By type of error, the first that fits: what is said before Modal's own words, and the way out after them."""


@contextlib.contextmanager
def explained(*passing: type[modal.exception.Error]) -> Iterator[None]:
    """Raises SweepError for every error of Modal's client. `passing`: those that the caller explains."""
    try:
        with lost_connections():
            yield
    except passing:
        raise
    except modal.exception.AuthError as error:
        reason = _words(error)
        way_out = "" if TOKEN in reason else f" Run {TOKEN}."  # for a missing token, the client's message has it
        raise SweepError(f"Modal refused the login: {reason}.{way_out}") from error
    except (modal.exception.ConnectionError, modal.exception.InternalError, modal.exception.ServiceError) as error:
        raise SweepError(f"Modal cannot be reached ({_words(error)}). Submitted work continues there.") from error
    except (aiohttp.ClientError, TimeoutError) as error:  # of an upload or download, which goes by plain HTTP
        raise SweepError(f"Modal cannot be reached ({error!r}). {AGAIN}") from error
    except modal.exception.Error as error:
        _, what, way_out = next(one for one in _WAYS_OUT if isinstance(error, one[0]))
        raise SweepError(f"{what}: {_words(error)}. {way_out}") from error


def _words(error: modal.exception.Error) -> str:
    """Modal's own, as one line."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
