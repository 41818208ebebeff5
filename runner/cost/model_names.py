"""What identifies a base model in records, whatever a config calls it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

SHA256_DIGITS = 64
"""Of an identity by content; a commit of the hub has 40."""


def model_name(base_model: str, identity: str | None) -> str:
    """A base model on this machine by its content, and one of the hub by its name, since its commits are equally fast.

    >>> model_name("Qwen/Qwen3-8B", "b968826d9c46dd6066d109eabc6255188de91218")
    'Qwen/Qwen3-8B'
    """
    return f"inputs/{identity[:16]}" if identity and len(identity) == SHA256_DIGITS else base_model


def identity_of_model(inputs: Iterable[Mapping[str, Any]]) -> str | None:
    """The base model's identity among the inputs in a run.json; None if it was not resolved."""
    return next((one.get("identity") for one in inputs if one.get("at") == "base_model"), None)
