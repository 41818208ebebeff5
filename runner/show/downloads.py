"""The downloads from the hub that containers on Modal are at, as lines of the live view."""

from __future__ import annotations

from typing import Any

from modal_app.store.hub import FETCH
from modal_app.store.layout import SUBMISSION, Store
from modal_app.store.read_json import read_json
from modal_app.store.state import Phase, observe
from modal_app.store.step import StepKind
from runner.cost.spent import containers, fetch_folder
from runner.show.headway import Timing
from runner.show.line import Line
from runner.store.run_state import RunStatus


def download_lines(store: Store, sweep: str) -> list[Line]:
    """Each download that a container works on and that a step waits for; none for a sweep on this machine."""
    steps: list[dict[str, Any]] = read_json(store.sweeps / sweep / SUBMISSION).get("steps") or []
    names = dict.fromkeys(
        name for step in steps if step.get("fetches") and _waits(store, step) for name in step["fetches"]
    )
    return [line for name in names if (line := _line(store, name)) is not None]


def _waits(store: Store, step: dict[str, Any]) -> bool:
    return observe(store, StepKind(step["kind"]), step["key"]).phase is Phase.ABSENT


def _line(store: Store, name: str) -> Line | None:
    records = containers(fetch_folder(store, name))
    if not records or records[-1].ended:
        return None
    item = name.removeprefix(f"{FETCH}/").partition("@")[0]
    started_at = records[-1].seen_at - records[-1].seconds  # its container may have done others before
    timing = Timing(name, RunStatus.RUNNING, started_at=started_at)
    return Line(StepKind.PREPROCESS, name, item, RunStatus.RUNNING, None, message="downloading", timing=timing)
