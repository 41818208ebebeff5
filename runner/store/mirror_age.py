"""The age of a mirror: runs on Modal are shown as of the last look."""

from __future__ import annotations

import shlex
import time

from modal_app.store.layout import SEEN, SUBMISSION, Store
from modal_app.store.read_json import read_json
from runner.store.stores import is_mirror


def stale(store: Store, sweep: str, store_arg: str | None = None) -> str:
    """A note about a mirrored sweep that may have changed since the last look; empty if it cannot have changed.

    `store_arg`: the store as it was named on the command line.
    """
    folder = store.sweeps / sweep
    if not is_mirror(store):
        return ""
    if not (folder / SUBMISSION).exists():
        return f"{sweep} was never submitted to Modal. Run the same command again to submit it."
    seen = read_json(folder / SEEN)
    if seen.get("over"):
        return ""
    at = seen.get("at")
    age = "as submitted" if at is None else f"as of {_age(time.time() - at)} ago"
    where = f" --store {shlex.quote(store_arg)}" if store_arg else ""
    return (
        f"{sweep} is on Modal; this is {age}. Update: axosweep status {sweep} --refresh{where}, or axosweep attach "
        f"{sweep}{where}"
    )


def _age(seconds: float) -> str:
    """
    >>> [_age(5), _age(600), _age(7200), _age(200_000)]
    ['5 s', '10 min', '2 h', '2 days']
    """
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= (2 if unit == "days" else 1) * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
