"""`stages:` of a config or sweep file, in words: what is done with each run, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from runner.errors import SweepError, did_you_mean

STAGES = ("preprocess", "train", "merge", "eval")


def stages_of(asked: Any) -> tuple[str, ...]:
    """The `stages` node, checked: the first of STAGES, or more of them, in their order. Raises SweepError.

    >>> stages_of(["preprocess", "train", "eval"])
    ('preprocess', 'train', 'eval')
    """
    many = isinstance(asked, Sequence) and not isinstance(asked, str)
    words = [str(word) for word in asked] if many else [str(asked)]
    for word in words:
        if word not in STAGES:
            raise SweepError(f"stages has no {word}.{did_you_mean(word, STAGES)} They are {', '.join(STAGES)}.")
    if words != [word for word in STAGES if word in words]:
        raise SweepError(f"stages=[{','.join(words)}]: each once, in this order: {', '.join(STAGES)}.")
    missing = [word for word in STAGES[: 2 if len(words) > 1 else 1] if word not in words]
    if missing:
        raise SweepError(
            f"stages=[{','.join(words)}] leaves out {' and '.join(missing)}, which comes before. What is finished is "
            "skipped, so nothing is done twice by naming it; for a run that has finished there are the verbs merge and "
            "eval."
        )
    return tuple(words)
