"""Calls the process that talks to W&B, and checks first that there is a key and that W&B answers."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from typing import TypeVar

from pydantic import ValidationError

from modal_app.process.tracking import DESCRIPTION
from modal_app.store.redact import without_passwords
from runner.errors import SweepError
from runner.wandb import account
from runner.wandb.messages import Failure, FailureReason, Request, Response, decode_response, encode

CONNECT_S = 10.0
SERVER_ERROR = 500
"""HTTP statuses from here on are errors of the server."""
PROCESS = "runner.wandb.process"
LIMITS = {
    "WANDB_HTTP_TIMEOUT": "20",
    "WANDB_INIT_TIMEOUT": "20",
    "WANDB__GRAPHQL_RETRY_MAX": "3",
    "WANDB__GRAPHQL_RETRY_WAIT_MAX_SECONDS": "5",
    "WANDB__FILE_STREAM_RETRY_MAX": "3",
    "WANDB__FILE_STREAM_RETRY_WAIT_MAX_SECONDS": "5",
    "WANDB__FILE_STREAM_TIMEOUT_SECONDS": "20",
    "WANDB__FILE_TRANSFER_RETRY_MAX": "3",
    "WANDB__FILE_TRANSFER_RETRY_WAIT_MAX_SECONDS": "5",
}
"""Settings of the SDK, unless this environment has others. By default it tries for days."""

R = TypeVar("R", bound=Response)


def check_reachable(action: str, advice: str) -> None:
    """Raises SweepError without a key for W&B, and when it does not answer.

    `action` begins the sentence about the key ("Uploading"); `advice` ends every message.
    """
    if not account.has_key():
        raise SweepError(
            f"{action} needs a key for {account.host()}, and there is none here. Run `wandb login`, or set "
            f"{account.KEY_VARIABLE}. {advice}"
        )
    try:
        urllib.request.urlopen(account.base_url(), timeout=CONNECT_S).close()
    except urllib.error.HTTPError as error:
        if error.code >= SERVER_ERROR:
            raise _no_answer(str(error), advice) from error
    except HTTPException as error:  # its text may contain a password of the address
        raise _no_answer(type(error).__name__, advice) from None
    except (OSError, ValueError) as error:
        raise _no_answer(str(error), advice) from error


def call(request: Request, response: type[R], *, failed: str, advice: str = "", timeout_s: float | None = None) -> R:
    """The response to a request, of the given type.

    Raises SweepError when W&B does not accept the key or does not answer, for a file or a disk of this machine, and
    with the text `failed` when the process ends without a response; its traceback is then on stderr.
    """
    text = _run_process(request, failed=failed, advice=advice, timeout_s=timeout_s)
    try:
        received = decode_response(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise SweepError(f"W&B gave an unexpected answer: {where}: {first['msg']}. {advice}".rstrip()) from error
    if isinstance(received, Failure):
        raise _failure(received, advice)
    if not isinstance(received, response):
        raise TypeError(f"{type(request).__name__} was answered by {type(received).__name__}")
    return received


def _run_process(request: Request, *, failed: str, advice: str, timeout_s: float | None) -> str:
    with tempfile.TemporaryDirectory() as logs:  # the SDK would leave its logs in this folder
        try:
            done = subprocess.run(
                [sys.executable, "-P", "-m", PROCESS],
                input=encode(request),
                stdout=subprocess.PIPE,
                env={**LIMITS, **_without_description(os.environ), "WANDB_DIR": logs},
                text=True,
                check=False,
                timeout=timeout_s,
            )
        except subprocess.TimeoutExpired as error:
            raise _no_answer(f"nothing for {timeout_s:.0f} seconds", advice) from error
    if done.returncode != 0:
        raise SweepError(failed)
    return done.stdout


def _without_description(environment: Mapping[str, str]) -> dict[str, str]:
    """Without the user's own variables for the name, tags and notes of a run: they would replace those in W&B."""
    return {name: value for name, value in environment.items() if name not in DESCRIPTION}


def _failure(failure: Failure, advice: str) -> SweepError:
    message = failure.message.strip()
    if failure.reason is FailureReason.REFUSED:
        return SweepError(
            f"{message.rstrip('.')}. Is the key right? `wandb login --relogin`, or {account.KEY_VARIABLE}."
        )
    if failure.reason is FailureReason.HERE:
        return SweepError(f"{message} {advice}".rstrip())
    return _no_answer(message, advice)


def _no_answer(why: str, advice: str) -> SweepError:
    return SweepError(f"W&B does not answer at {without_passwords(account.base_url())} ({why}). {advice}".rstrip())
