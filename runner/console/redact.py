"""Secrets removed from what is shown or published: reports, model cards, errors of other libraries."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from modal_app.store.redact import HIDDEN, redacted, without_passwords

_KNOWN_FORMS = re.compile(
    r"\b(hf_[A-Za-z0-9]{16,}|a[ks]-[A-Za-z0-9]{16,}|wandb_v\d_[A-Za-z0-9_]{16,}|sk-[A-Za-z0-9_-]{16,})"
)
"""The forms of the secrets of Hugging Face, Modal, W&B and others."""
_NAMED = re.compile(
    r"(?i)((?:api_?key|secret|password|passwd|token|webhook_url|authorization)[\"']?\s*[=:]\s*(?:bearer\s+)?[\"']?)"
    r"([^\s\"',}\]]{8,})"
)


def redact(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """The text with everything hidden that looks like a secret, or is one in this environment.

    >>> redact("WANDB_API_KEY=0123456789abcdef max_steps=5", {})
    'WANDB_API_KEY=*** max_steps=5'
    """
    text = str(redacted(text, environment))
    text = _KNOWN_FORMS.sub(HIDDEN, text)
    text = _NAMED.sub(lambda found: found[1] + HIDDEN, text)
    return without_passwords(text)
