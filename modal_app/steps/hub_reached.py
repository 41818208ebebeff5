"""Whether the hub can be reached, checked once before its datasets are requested. Standard library until then."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from modal_app.patches.apply import be_offline_as
from modal_app.process.failures import StepFailed
from modal_app.store.redact import without_passwords
from modal_app.store.step import FailureReason

ANSWERS_WITHIN_S = 5.0


@contextlib.contextmanager
def offline_if_unreachable() -> Iterator[None]:
    """In the block, and in this process from then on, a hub that does not answer is not used: what is in the cache is
    taken, and everything else fails at once.

    The hub's library would try six times for each dataset, for 23 seconds, and has no setting for that. Raises
    StepFailed.
    """
    from huggingface_hub import constants

    why = "" if constants.HF_HUB_OFFLINE else _why_not(constants.ENDPOINT)
    if not why:
        yield
        return
    os.environ["HF_HUB_OFFLINE"] = "1"
    be_offline_as(os.environ)
    try:
        yield
    except ConnectionError as error:
        said = str(error).partition(" (")[0]  # Couldn't reach 'owner/name' on the Hub (...)
        raise StepFailed(
            FailureReason.DATA, f"{said}: {without_passwords(constants.ENDPOINT)} does not answer ({why})"
        ) from error


def _why_not(endpoint: str) -> str:
    """Why the hub does not answer; empty if it does, whatever the answer."""
    import httpx
    from huggingface_hub import get_session

    try:
        get_session().head(endpoint, timeout=ANSWERS_WITHIN_S)
    except httpx.TransportError as error:
        return type(error).__name__
    return ""
