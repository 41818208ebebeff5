"""Signing in with W&B's SDK, and the SDK's errors; all requests need these."""

from __future__ import annotations

from typing import Any

import wandb
import wandb.errors
from wandb.sdk.lib.service.service_connection import WandbApiFailedError

ERRORS = (wandb.errors.Error, WandbApiFailedError, OSError)
"""The SDK raises these when W&B does not answer, or answers with an error. Some of its calls pass on an error of its
service process, which is not a wandb.errors.Error."""


def sign_in() -> Any:
    """The SDK's reader. Raises wandb.errors.AuthenticationError when W&B does not accept the key."""
    try:
        api = wandb.Api()
        _ = api.viewer  # only this checks an identity token
    except (wandb.errors.UsageError, ValueError) as error:
        raise wandb.errors.AuthenticationError(str(error)) from error
    return api
