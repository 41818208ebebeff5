"""Fetches a repository into the hub's cache: `python modal_app/run.py fetch NAME COMMIT [SKIPPED ...]`.

The hub's library retries within seconds and not every request. What it gives up is tried again here after longer
pauses, unless the hub has refused it: a fetch that fails blocks all runs of that model.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

PAUSES_S = (15.0, 60.0)
"""Before the second and the third try."""
WORTH_A_TRY = (408, 429)
"""Of the 4xx, the two that mean later, not no."""


def main() -> int:
    words = argparse.ArgumentParser()
    words.add_argument("--pauses", type=float, nargs="*", default=PAUSES_S, help="seconds before each further try")
    words.add_argument("name")
    words.add_argument("commit")
    words.add_argument("skipped", nargs="*", help="patterns of files to leave out")
    asked = words.parse_args()
    print(fetch(asked.name, asked.commit, asked.skipped, asked.pauses), flush=True)
    return 0


def fetch(name: str, commit: str, skipped: list[str], pauses_s: Sequence[float]) -> str:
    """The folder of the snapshot. Raises what the hub's library raised at the last try, or at a refusal."""
    from huggingface_hub import snapshot_download

    for pause_s in pauses_s:
        try:
            return str(snapshot_download(name, revision=commit, ignore_patterns=skipped))
        except Exception as problem:  # httpx's, the hub's, Xet's and the system's have no other base
            if is_refusal(problem):
                raise
            print(f"{name}: {problem!r}; another try in {pause_s:g} s", file=sys.stderr, flush=True)
        time.sleep(pause_s)
    return str(snapshot_download(name, revision=commit, ignore_patterns=skipped))


def is_refusal(problem: BaseException | None) -> bool:
    """Whether the hub has answered that it will not give it: a 4xx, itself or behind the library's own error."""
    while problem is not None:
        status = getattr(getattr(problem, "response", None), "status_code", None)
        if status is not None:
            return 400 <= status < 500 and status not in WORTH_A_TRY
        problem = problem.__cause__
    return False
