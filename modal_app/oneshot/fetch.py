"""Fetches a repository into the hub's cache: `python modal_app/run.py fetch NAME COMMIT [SKIPPED ...]`.

The hub's library retries only some requests, and only for seconds. A failed fetch blocks all runs of the model, so this
tries again after longer pauses, unless the hub has refused the request.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

PAUSES_S = (15.0, 60.0)
"""Before the second and the third try."""
WORTH_A_TRY = (408, 429)
"""The two 4xx codes that are temporary."""


def main() -> int:
    words = argparse.ArgumentParser()
    words.add_argument("--pauses", type=float, nargs="*", default=PAUSES_S, help="seconds before each further try")
    words.add_argument("name")
    words.add_argument("commit")
    words.add_argument("skipped", nargs="*", help="patterns of files to leave out")
    args = words.parse_args()
    print(fetch(args.name, args.commit, args.skipped, args.pauses), flush=True)
    return 0


def fetch(name: str, commit: str, skipped: list[str], pauses_s: Sequence[float]) -> str:
    """The folder of the snapshot. Raises the error of the hub's library after a refusal or the last try."""
    from huggingface_hub import snapshot_download

    for pause_s in pauses_s:
        try:
            return str(snapshot_download(name, revision=commit, ignore_patterns=skipped))
        except Exception as problem:  # the errors of httpx, the hub, Xet and the system have no other common base
            if is_refusal(problem):
                raise
            print(f"{name}: {problem!r}; another try in {pause_s:g} s", file=sys.stderr, flush=True)
        time.sleep(pause_s)
    return str(snapshot_download(name, revision=commit, ignore_patterns=skipped))


def is_refusal(problem: BaseException | None) -> bool:
    """Whether the hub has refused the request: the error, or one of its causes, is a permanent 4xx."""
    while problem is not None:
        status = getattr(getattr(problem, "response", None), "status_code", None)
        if status is not None:
            return 400 <= status < 500 and status not in WORTH_A_TRY
        problem = problem.__cause__
    return False
