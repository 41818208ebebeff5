"""What the hub's library raises while it pushes -> a sentence that says what to do."""

from __future__ import annotations

from collections.abc import Iterator

from runner.console.redact import redact
from runner.keys.hub_commits import endpoint

UNREADABLE = (KeyError, TypeError)
"""What the library raises while it reads an answer that lacks something."""


def library_errors() -> tuple[type[Exception], ...]:
    """What a push may raise: the library's, httpx's and Xet's have no other base."""
    from huggingface_hub.utils import httpx

    return (httpx.HTTPError, httpx.InvalidURL, OSError, RuntimeError, ValueError, *UNREADABLE)


def problem_of(error: Exception, repo: str) -> str:
    """The sentence, without a secret. `repo`: owner/name."""
    return redact(_problem_of(error, repo))


def _problem_of(error: Exception, repo: str) -> str:
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import httpx

    chain = tuple(_chain(error))
    problem = _first_line(chain[-1])
    if isinstance(error, UNREADABLE):
        return f"The answer of the hub at {endpoint()} is not what was expected ({type(error).__name__}: {problem})."
    status = next((one.response.status_code for one in chain if isinstance(one, HfHubHTTPError)), None)
    if status is None and any(isinstance(one, httpx.TransportError) for one in chain):
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
    return f"It could not be pushed: {problem}"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and those that it was raised over: the library wraps what went wrong in errors of its own."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
