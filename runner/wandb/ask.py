"""Asking W&B from a process that does not know it: is there a key, does it answer, and what does the child say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from typing import Any

from runner.errors import SweepError
from runner.wandb import account
from runner.wandb.messages import REFUSED, SILENT

REACH_S = 10.0
SERVER_ERROR = 500
"""HTTP: from here on the fault is the server's."""


def refuse_unreachable(doing: str, otherwise: str) -> None:
    """Raises SweepError without a key for W&B, and when it does not answer.

    `doing` begins the sentence on the key; `otherwise` is what holds until then.
    """
    if not account.has_key():
        raise SweepError(
            f"{doing} needs a key for {account.host()}, and there is none here: `wandb login`, or {account.KEY}. "
            f"{otherwise}"
        )
    try:
        urllib.request.urlopen(account.base_url(), timeout=REACH_S).close()
    except urllib.error.HTTPError as error:
        if error.code >= SERVER_ERROR:
            raise _silent(str(error), otherwise) from error
    except (OSError, ValueError) as error:
        raise _silent(str(error), otherwise) from error


def ask(module: str, request: Any, *, failed: str, otherwise: str, timeout_s: float | None = None) -> Any:
    """What a module of ours that knows W&B answers to a request; JSON both ways.

    Raises SweepError when W&B lets nobody in or stops answering, and with `failed` when the process fails otherwise.
    """
    with tempfile.TemporaryDirectory() as logs:  # W&B's own, which it would leave in this folder
        try:
            done = subprocess.run(
                [sys.executable, "-P", "-m", module],
                input=json.dumps(request),
                stdout=subprocess.PIPE,
                env={**os.environ, "WANDB_DIR": logs},
                text=True,
                check=False,
                timeout=timeout_s,
            )
        except subprocess.TimeoutExpired as error:
            raise _silent(f"nothing for {timeout_s:.0f} seconds", otherwise) from error
    match done.returncode:
        case 0:
            return json.loads(done.stdout)
        case code if code == REFUSED:
            said = done.stdout.strip().rstrip(".")
            raise SweepError(f"{said}. Is the key right? `wandb login --relogin`, or {account.KEY}.")
        case code if code == SILENT:
            raise _silent(done.stdout.strip(), otherwise)
    raise SweepError(failed)


def _silent(why: str, otherwise: str) -> SweepError:
    return SweepError(f"W&B does not answer at {account.base_url()} ({why}). {otherwise}")
