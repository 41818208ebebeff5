"""Secrets removed from what is shown or published: reports, model cards, errors of other libraries."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from modal_app.store.redact import HIDDEN, redacted, secrets_of, without_passwords

_KNOWN_FORMS = re.compile(
    r"\b(hf_[A-Za-z0-9]{16,}|a[ks]-[A-Za-z0-9]{16,}|wandb_v\d_[A-Za-z0-9_]{16,}|sk-[A-Za-z0-9_-]{16,})"
)
"""The forms of the secrets of Hugging Face, Modal, W&B and others."""
_NAMED = re.compile(
    r"(?i)((?:api_?key|secret|password|passwd|token|webhook_url|authorization)[\"']?\s*[=:]\s*(?:bearer\s+)?[\"']?)"
    r"([^\s\"',}\]<\[][^\s\"',}\]]{7,})"
)
"""Not a special token of a tokenizer: `pad_token: <|end_of_text|>`, `pad_token: [control_8]`."""
_BEGUN = re.compile(
    r"(?i)(?:\b(?:hf_|a[ks]-|wandb_v|sk-)[\w-]*"
    r"|(?:api_?key|secret|password|passwd|token|webhook_url|authorization)[\"']?\s*[=:]\s*(?:bearer\s+)?[\"']?[^\s\"',}\]]*"
    r"|://[^\s/:@]+:[^\s/@]*)$"
)
"""What may go on as one of these, or as the password of an address, where a text is cut."""


def redact(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """The text with everything hidden that looks like a secret, or is one in this environment.

    >>> redact("WANDB_API_KEY=0123456789abcdef max_steps=5", {})
    'WANDB_API_KEY=*** max_steps=5'
    >>> redact("hub_token: 0123456789abcdef, pad_token: <|end_of_text|>", {})
    'hub_token: ***, pad_token: <|end_of_text|>'
    """
    text = str(redacted(text, environment))
    text = _KNOWN_FORMS.sub(HIDDEN, text)
    text = _NAMED.sub(lambda found: found[1] + HIDDEN, text)
    return without_passwords(text)


def redact_cut(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """The same of a text that was cut at its end: what may be the first part of a secret is left out.

    >>> redact_cut("my key: hunt", {"A_TOKEN": "hunter2hunter2"})
    'my key: '
    """
    text = redact(text, environment)
    for secret in secrets_of(environment):
        parts = (secret[:length] for length in range(len(secret) - 1, 0, -1))
        text = text.removesuffix(next(filter(text.endswith, parts), ""))
    return _BEGUN.sub("", text)
