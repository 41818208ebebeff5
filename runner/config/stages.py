"""`stages:` of a config or sweep file: what is done with each run, in order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from runner.errors import SweepError, did_you_mean

STAGES = ("preprocess", "train", "merge", "eval")


def stages_of(node: Any) -> tuple[str, ...]:
    """The `stages` node, checked: the first of STAGES, or more of them, in their order. Raises SweepError.

    >>> stages_of(["preprocess", "train", "eval"])
    ('preprocess', 'train', 'eval')
    """
    many = isinstance(node, Sequence) and not isinstance(node, str)
    words = [str(word) for word in node] if many else [str(node)]
    for word in words:
        if word not in STAGES:
            raise SweepError(f"stages has no {word}.{did_you_mean(word, STAGES)} It has: {', '.join(STAGES)}.")
    if words != [word for word in STAGES if word in words]:
        raise SweepError(f"stages=[{','.join(words)}]: write each once, in this order: {', '.join(STAGES)}.")
    missing = [word for word in STAGES[: 2 if len(words) > 1 else 1] if word not in words]
    if missing:
        raise SweepError(
            f"stages=[{','.join(words)}] leaves out {' and '.join(missing)}, which comes first. Name it, "
            "too: what is finished is skipped. For a finished run, use the verbs merge and eval."
        )
    return tuple(words)
