"""How long the name of a sweep may be, which its id and its folder begin with."""

from __future__ import annotations

LONGEST = 60


def within_limit(name: str) -> str:
    """The name, cut after its last complete word if it is too long. Words are separated by hyphens.

    >>> within_limit("-".join(["gradient_accumulation_steps", "learning_rate", "lora_target_modules"]))
    'gradient_accumulation_steps-learning_rate'
    """
    if len(name) <= LONGEST:
        return name
    words, hyphen, _ = name[: LONGEST + 1].rpartition("-")
    return words if hyphen and words else name[:LONGEST]
