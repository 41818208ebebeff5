"""Which tasks the lm-evaluation-harness knows: `python modal_app/run.py tasks`.

Reads {"tasks", "include"} from standard input and prints the unknown tasks, each with the most similar known ones.
"""

from __future__ import annotations

import difflib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def main() -> int:
    request = json.loads(sys.stdin.read())
    stdout = os.dup(1)
    os.dup2(2, 1)  # so that output of the imports is not part of the answer
    unknown = unknown_of(request["tasks"], catalogue(request["include"]))
    with os.fdopen(stdout, "w", encoding="utf-8") as answer:
        json.dump(unknown, answer)
    return 0


def unknown_of(names: Sequence[str], known: Any) -> dict[str, list[str]]:
    """Name -> the most similar known tasks, for each of `names` (tasks, groups, tags, patterns of them) that is not in
    the catalogue."""
    return {
        name: difflib.get_close_matches(name, known.all_tasks, n=3, cutoff=0.6)
        for name in names
        if not known.match_tasks([name])
    }


def catalogue(include: str | None) -> Any:
    """The harness's TaskManager, which has read its own task files and those in the folder `include`."""
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=None if include is None else str(Path(include).absolute()))


def said_of(unknown: Mapping[str, Sequence[str]]) -> str:
    """The result of `unknown_of` as a sentence."""
    words = [f"{name} (did you mean {' or '.join(near)}?)" if near else name for name, near in unknown.items()]
    return f"The lm-evaluation-harness has no task {', '.join(words)}."
