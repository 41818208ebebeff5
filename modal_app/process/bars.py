"""What the progress bars of libraries show, written into progress.json while a step downloads or tokenizes.

Libraries draw their bars with tqdm, which knows all bars of a process. A thread reads them and takes no lock: the step
may fork at any moment, and the lock would stay locked in the child forever.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from modal_app.store.step import write_atomically

EVERY_S = 1.0
BYTES = "B"


@dataclass(frozen=True, slots=True)
class BarsState:
    """progress.json of a step that is not answering prompts."""

    doing: str
    """For people."""
    done: int
    of: int
    unit: str
    """BYTES of a download, or what is counted, as the library names it."""
    since: float
    """When this began, Unix seconds."""


@contextlib.contextmanager
def noted_bars(path: Path, until: Path | None = None, *, every_s: float = EVERY_S) -> Iterator[None]:
    """Keep `path` up to date while the body runs, at most until the file `until` exists. With `until`, only downloads
    are noted: a trainer's other bars are not the run's progress."""
    ended = threading.Event()
    arguments = (path, until, ended, every_s)
    thread = threading.Thread(target=_note, args=arguments, daemon=True, name="progress bars")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        path.unlink(missing_ok=True)


def _note(path: Path, until: Path | None, ended: threading.Event, every_s: float) -> None:
    before: BarsState | None = None
    while not ended.wait(every_s) and not (until and until.exists()):
        state = _state(before, only_bytes=until is not None)
        if state == before:
            continue
        with contextlib.suppress(OSError):  # a full disk ends the step, not this
            if state is None:
                path.unlink(missing_ok=True)
            else:
                write_atomically(path, json.dumps(asdict(state)))
        before = state
    path.unlink(missing_ok=True)


def _state(before: BarsState | None, *, only_bytes: bool) -> BarsState | None:
    """The state of all downloads together, otherwise of the newest bar. None without a bar."""
    bars = _bars()
    downloads = [bar for bar in bars if bar.unit == BYTES]
    if downloads:
        done, of = sum(int(bar.n) for bar in downloads), sum(int(bar.total) for bar in downloads)
        return _going_on(before, BarsState("downloading", done, of, BYTES, time.time()))
    if only_bytes or not bars:
        return None
    newest = max(bars, key=lambda bar: bar.start_t)
    doing = (newest.desc or "").rstrip(": ")
    return _going_on(before, BarsState(doing, int(newest.n), int(newest.total), str(newest.unit).strip(), time.time()))


def _going_on(before: BarsState | None, now: BarsState) -> BarsState:
    """The state with the earlier start time, if the same work is still going on."""
    same = before is not None and (before.doing, before.unit) == (now.doing, now.unit) and before.done <= now.done
    return BarsState(now.doing, now.done, now.of, now.unit, before.since) if before and same else now


def _bars() -> list[Any]:
    tqdm = getattr(sys.modules.get("tqdm"), "tqdm", None)  # an import in a thread could be cut in half by a fork
    try:
        known = list(getattr(tqdm, "_instances", ()))
        return [bar for bar in known if hasattr(bar, "start_t") and bar.total]  # it is set last
    except RuntimeError:  # one was opened or closed meanwhile
        return []
