"""Turns errors of the hub's library during a push into a message that says what to do."""

from __future__ import annotations

from collections.abc import Iterator

from runner.console.redact import redact
from runner.keys.hub_commits import shown_endpoint

UNREADABLE = (KeyError, TypeError)
"""The library raises these when an answer lacks something."""


def library_errors() -> tuple[type[Exception], ...]:
    """The errors that a push may raise: those of the library, of httpx and of Xet have no narrower common base."""
    from huggingface_hub.utils import httpx

    return (httpx.HTTPError, httpx.InvalidURL, OSError, RuntimeError, ValueError, *UNREADABLE)


def problem_of(error: Exception, repo: str) -> str:
    """The message, without secrets. `repo`: owner/name."""
    return redact(_problem_of(error, repo))


def _problem_of(error: Exception, repo: str) -> str:
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import httpx

    chain = tuple(_chain(error))
    problem = _first_line(chain[-1])
    if isinstance(error, UNREADABLE):
        return f"The hub at {shown_endpoint()} gave an unexpected answer ({type(error).__name__}: {problem})."
    status = next((one.response.status_code for one in chain if isinstance(one, HfHubHTTPError)), None)
    if status is None and any(isinstance(one, httpx.TransportError) for one in chain):
        return f"The hub does not answer at {shown_endpoint()} ({problem}). The same command continues from here."
    match status:
        case 401:
            return (
                "The hub does not accept the token (401). Run `hf auth login`, or set HF_TOKEN to a token with write "
                "access."
            )
        case 403:
            return (
                f"The token may not write to {repo} (403): it needs write access, and your account the right to that "
                "name. Run `hf auth login`, or set HF_TOKEN."
            )
        case 404:
            return f"The hub has no {repo}, or the token has no access to it (404)."
        case 409 | 412:
            return f"{repo} was changed during the push, so nothing was committed ({status}). Run the command again."
        case int():
            return f"The hub answered {status}. Run the command again; finished uploads are not repeated."
    return f"The push failed: {problem}"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and its causes: the library wraps other errors in its own."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
