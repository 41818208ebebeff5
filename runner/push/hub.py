"""Asks the process that has the hub's library to push, and knows whether there is a token to push with."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from modal_app.oneshot.push import REFUSED, Pushed, Upload
from modal_app.store.sources import RUN
from runner.console.redact import redact
from runner.environment import trainer_environment
from runner.errors import SweepError
from runner.keys import hub_commits

LIBRARY = "huggingface_hub"


def refuse_unready(timeout_s: float = hub_commits.TIMEOUT_S) -> None:
    """Raises SweepError when nothing can be pushed from here: no token, an offline hub, or one that does not answer,
    which the hub's library would wait for without end.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in hub_commits.TRUE:
        raise SweepError("HF_HUB_OFFLINE is set, and a push asks the hub. --dry-run shows what would be pushed.")
    token = hub_commits.user_token()
    if token is None:
        raise SweepError(
            "A push needs a token of the Hugging Face hub that may write, and there is none here: `hf auth login`, or "
            "HF_TOKEN. --dry-run shows what would be pushed."
        )
    if not hub_commits.can_be_sent(token):
        raise SweepError("The token (HF_TOKEN, `hf auth login`) holds characters that cannot be sent.")
    access = hub_commits.look(timeout_s)
    if not access.reached:
        raise SweepError(
            f"The hub does not answer at {access.endpoint} ({access.problem}), so nothing was pushed. Run it again "
            "with a network (HF_ENDPOINT names another hub). --dry-run shows what would be pushed."
        )


def upload(what: Upload) -> Pushed:
    """Push, and say what has changed there. Progress goes to standard error. Raises SweepError with what the hub has
    answered."""
    python = _python()
    process = subprocess.Popen(
        [python, RUN, "push"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=_environment(), text=True
    )
    try:
        said, _ = process.communicate(json.dumps(asdict(what)))
    except BaseException:
        process.send_signal(signal.SIGTERM)
        process.wait()
        raise
    if process.returncode == REFUSED:
        raise SweepError(redact(json.loads(said)["problem"]))
    if process.returncode != 0:
        raise SweepError(
            f"The process that pushes ended with {process.returncode}; what it said stands above. What was uploaded is "
            "not uploaded again: run it again."
        )
    return _pushed(json.loads(said))


def _pushed(raw: dict[str, Any]) -> Pushed:
    return Pushed(**raw | {name: tuple(raw[name]) for name in ("replaced", "removed", "kept")})


def _python() -> Path:
    """The trainer's, whose library is the locked one; else this one, where somebody has installed it."""
    try:
        return trainer_environment.find()
    except SweepError as error:
        if importlib.util.find_spec(LIBRARY) is None:
            raise SweepError(
                f"A push needs {LIBRARY}, which comes with the trainer environment: `axosweep setup`. Or install it "
                f"here alone: {sys.executable} -m pip install {LIBRARY}"
            ) from error
        return Path(sys.executable)


def _environment() -> dict[str, str]:
    """The hub's library knows HF_TOKEN and its own file. Bars are for a terminal."""
    variables = {**os.environ, "DO_NOT_TRACK": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    if token := hub_commits.user_token():
        variables["HF_TOKEN"] = token
    if not sys.stderr.isatty():
        variables["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    return variables
