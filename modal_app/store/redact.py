"""Removes what must not leave this machine in a config: values of keys that name a secret, and the secrets of the
environment."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "***"
_SECRET = re.compile(r"(^|_)(api_key|secret|password|webhook_url)$")
_SECRET_VARIABLE = re.compile(
    r"(_API_KEY|_TOKEN|_TOKEN_ID|_TOKEN_SECRET|_SECRET|_PASSWORD|_SECRET_ACCESS_KEY|_WEBHOOK|_WEBHOOK_URL|_NOTIFY_URL)$"
)
_IN_ADDRESS = re.compile(r"(://[^\s/:@]+:)[^\s/@]+@")
_SHORTEST = 8
"""A shorter value of such a variable is a flag or a placeholder, and would be found in innocent words."""


def is_secret(key: str) -> bool:
    """Whether a key, at any depth, has a secret value, according to its name."""
    return _SECRET.search(key) is not None


def is_secret_variable(name: str) -> bool:
    """Whether an environment variable has a secret value, according to its name."""
    return _SECRET_VARIABLE.search(name) is not None


def redacted(value: Any, environment: Mapping[str, str] = os.environ) -> Any:
    """The same JSON value with every secret in it replaced.

    >>> redacted({"comet_api_key": "x", "name": "a hunter22 b"}, {"HF_TOKEN": "hunter22"})
    {'comet_api_key': '***', 'name': 'a *** b'}
    """
    return _redacted(value, secrets_of(environment))


def secrets_of(environment: Mapping[str, str]) -> list[str]:
    """The values of the variables that have a secret value, according to their names."""
    return [text for name, text in environment.items() if _SECRET_VARIABLE.search(name) and len(text) >= _SHORTEST]


def without_passwords(text: str) -> str:
    """The text without the passwords of its addresses: a mirror's may have one.

    >>> without_passwords("https://me:hunter22@mirror.example/hub")
    'https://me:***@mirror.example/hub'
    """
    return _IN_ADDRESS.sub(rf"\g<1>{HIDDEN}@", text)


def _redacted(value: Any, known: list[str]) -> Any:
    match value:
        case Mapping():
            return {
                key: HIDDEN if is_secret(str(key)) and item else _redacted(item, known) for key, item in value.items()
            }
        case list() | tuple():
            return [_redacted(item, known) for item in value]
        case str():
            for text in known:
                value = value.replace(text, HIDDEN)
    return value
