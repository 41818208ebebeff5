"""What the hub's library raises while it pushes -> a sentence that says what to do."""

from __future__ import annotations

from runner.console.redact import redact
from runner.keys.hub_commits import endpoint


def library_errors() -> tuple[type[Exception], ...]:
    """What a push may raise beside mistakes of our own: the library's, httpx's and Xet's have no other base."""
    from huggingface_hub.utils import httpx

    return (httpx.HTTPError, httpx.InvalidURL, OSError, RuntimeError, ValueError)


def problem_of(error: Exception, repo: str) -> str:
    """The sentence, without a secret. `repo`: owner/name."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    status = _status(error)
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set, and a push asks the hub."
    if status is None and _is_transport(error):
        problem = redact(_innermost(error))
        return f"The hub does not answer at {endpoint()} ({problem}). Run it again: it goes on from here."
    match status:
        case 401:
            return "The hub does not take the token (401). `hf auth login`, or HF_TOKEN with a token that may write."
        case 403:
            return (
                f"The token may not write to {repo} (403): it needs the role write, and you the right to that name. "
                "`hf auth login`, or HF_TOKEN."
            )
        case 404:
            return f"The hub has no {repo}, or the token does not open it (404)."
        case 409 | 412:
            return f"{repo} was changed while this was pushed, so nothing was committed ({status}). Run it again."
        case int():
            return f"The hub answered {status}. What was uploaded is not uploaded again: run it again."
    return f"It could not be pushed: {redact(_innermost(error))}"


def _status(error: BaseException | None) -> int | None:
    """What the hub answered, where it did: the library raises errors of its own over it."""
    while error is not None:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(status, int):
            return status
        error = error.__cause__ or error.__context__
    return None


def _is_transport(error: BaseException | None) -> bool:
    from huggingface_hub.utils import httpx

    while error is not None:
        if isinstance(error, httpx.TransportError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _innermost(error: BaseException) -> str:
    while (inner := error.__cause__) is not None:
        error = inner
    lines = str(error).splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
