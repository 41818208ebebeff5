"""What all requests need of W&B's SDK: to sign in, and to know its errors."""

from __future__ import annotations

from typing import Any

import wandb
import wandb.errors
from wandb.sdk.lib.service.service_connection import WandbApiFailedError

ERRORS = (wandb.errors.Error, WandbApiFailedError, OSError)
"""What the SDK raises when W&B does not answer, or answers with an error: some of its calls pass its service process's
own error on, which is not a wandb.errors.Error."""


def sign_in() -> Any:
    """The SDK's reader. Raises wandb.errors.AuthenticationError when W&B does not take the key."""
    try:
        api = wandb.Api()
        _ = api.viewer  # of the two, only this checks an identity token
    except (wandb.errors.UsageError, ValueError) as error:
        raise wandb.errors.AuthenticationError(str(error)) from error
    return api
