"""Sends a notice to a webhook. Standard library. No error here contains the address or a text of the server."""

from __future__ import annotations

import os
import ssl
import urllib.error
import urllib.request
from http.client import HTTPException, HTTPMessage
from typing import IO

from modal_app.store.notice import Notice, address_problem

TIMEOUT_S = 5.0


class NotSent(Exception):
    """Why a notice was not sent, for people."""


def send(notice: Notice, name: str, timeout_s: float = TIMEOUT_S) -> None:
    """Send a notice to the webhook whose address is in the variable `name`. Raises NotSent."""
    if problem := address_problem(name):
        raise NotSent(problem)
    headers = {"Content-Type": "application/json", "User-Agent": "axosweep"}
    try:
        request = urllib.request.Request(os.environ[name], notice.body().encode(), headers, method="POST")
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=timeout_s):
            return
    except urllib.error.HTTPError as error:
        error.close()
        raise NotSent(f"the webhook in {name} answered with status {error.code}") from None
    except (OSError, HTTPException, ValueError) as error:
        raise NotSent(f"the webhook in {name} does not answer ({_why(error)})") from None


def _why(error: Exception) -> str:
    inner = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(inner, str):
        return type(error).__name__
    if isinstance(inner, OSError) and not isinstance(inner, ssl.SSLError) and inner.strerror:
        return inner.strerror  # that of an error of TLS may name the server
    return type(inner).__name__


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would be followed without the body, or to another server."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        return None
