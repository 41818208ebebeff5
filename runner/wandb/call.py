"""Calling the process that talks to W&B: is there a key, does W&B answer, and what the process responds."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from typing import Annotated, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from runner.errors import SweepError
from runner.wandb import account
from runner.wandb.messages import Failure, FailureReason, Request, Response, encode

CONNECT_S = 10.0
SERVER_ERROR = 500
"""HTTP: from here on the fault is the server's."""
PROCESS = "runner.wandb.process"

R = TypeVar("R", bound=Response)


def check_reachable(action: str, advice: str) -> None:
    """Raises SweepError without a key for W&B, and when it does not answer.

    `action` begins the sentence about the key ("Uploading"); `advice` ends every message.
    """
    if not account.has_key():
        raise SweepError(
            f"{action} needs a key for {account.host()}, and there is none here: `wandb login`, or {account.KEY}. "
            f"{advice}"
        )
    try:
        urllib.request.urlopen(account.base_url(), timeout=CONNECT_S).close()
    except urllib.error.HTTPError as error:
        if error.code >= SERVER_ERROR:
            raise _no_answer(str(error), advice) from error
    except (OSError, ValueError) as error:
        raise _no_answer(str(error), advice) from error


def call(request: Request, response: type[R], *, failed: str, advice: str = "", timeout_s: float | None = None) -> R:
    """The response to a request, of the type that goes with it.

    Raises SweepError when W&B does not take the key or does not answer, and with `failed` when the process ends
    without a response; what it printed then stands on stderr.
    """
    received = _receive(request, failed=failed, advice=advice, timeout_s=timeout_s)
    if isinstance(received, response):
        return received
    if not isinstance(received, Failure):
        raise SweepError(f"{failed} ({PROCESS} answered {type(request).__name__} by {type(received).__name__}.)")
    if received.reason is FailureReason.REFUSED:
        message = received.message.strip().rstrip(".")
        raise SweepError(f"{message}. Is the key right? `wandb login --relogin`, or {account.KEY}.")
    raise _no_answer(received.message.strip(), advice)


def _receive(request: Request, *, failed: str, advice: str, timeout_s: float | None) -> Response:
    with tempfile.TemporaryDirectory() as logs:  # the SDK's own, which it would leave in this folder
        try:
            done = subprocess.run(
                [sys.executable, "-P", "-m", PROCESS],
                input=encode(request),
                stdout=subprocess.PIPE,
                env={**os.environ, "WANDB_DIR": logs},
                text=True,
                check=False,
                timeout=timeout_s,
            )
        except subprocess.TimeoutExpired as error:
            raise _no_answer(f"nothing for {timeout_s:.0f} seconds", advice) from error
    if done.returncode != 0:
        raise SweepError(failed)
    responses: TypeAdapter[Response] = TypeAdapter(Annotated[Response, Field(discriminator="kind")])
    try:
        return responses.validate_json(done.stdout)
    except ValidationError as error:
        raise SweepError(f"{failed} W&B's answer is not what was expected: {error}") from error


def _no_answer(why: str, advice: str) -> SweepError:
    return SweepError(f"W&B does not answer at {account.base_url()} ({why}). {advice}".rstrip())
