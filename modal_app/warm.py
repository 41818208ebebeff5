"""A trainer that has imported everything and forks a child per step: `python modal_app/warm.py --store DIR`.

Standard input: one JSON line per request, {"step": {...}}, or {"validate": FOLDER} with questions for the schema
(modal_app.validate). Standard output: one JSON line per event: ready, started, exited, validated. CPU only: a fork of a
process that has woken CUDA cannot use it. At the end of its input (the launcher closed it, or died) it takes no more
requests, waits for the children it has, and ends.
"""

from __future__ import annotations

if __name__ == "__main__":
    from start import run  # type: ignore[import-not-found]  # beside this file, which is started by its path

    run("warm")

import argparse
import atexit
import contextlib
import json
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modal_app import preload, state, stop, validate
from modal_app.attempt import base_environment
from modal_app.layout import Store
from modal_app.step import Device, Step
from modal_app.worker import exit_code, lead_a_session

ALIVE_CHECK_S = 0.05


@dataclass(frozen=True, slots=True)
class Child:
    pid: int
    step: Step | None
    """None for one that answers questions."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Fork a worker per step read from standard input.")
    parser.add_argument("--store", type=Path, required=True)
    store = Store(parser.parse_args().store.resolve())
    lead_a_session()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the launcher's to answer
    began = time.monotonic()
    # What the imports print is not for the launcher's ears.
    events = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    _prepare()
    _tell(events, event="ready", seconds=round(time.monotonic() - began, 3))
    _serve(store, events)
    return 0


def _prepare() -> None:
    os.environ |= base_environment(Device.CPU)
    preload.load(preload.EVERYTHING)
    preload.memoise_schema()
    import torch

    assert not torch.cuda.is_initialized(), "an import has woken CUDA: children could not use it"


def _serve(store: Store, events: Any) -> None:
    """Fork on each line, report each end. Until the input has ended and no child is left."""
    children: list[Child] = []
    pending, accepting = b"", True
    while accepting or children:
        if accepting and select.select([0], [], [], ALIVE_CHECK_S if children else None)[0]:
            chunk = os.read(0, 1 << 16)
            accepting = bool(chunk)
            *lines, pending = (pending + chunk).split(b"\n")
            children += [_begin(json.loads(line), store, events) for line in lines]
        elif not accepting:
            time.sleep(ALIVE_CHECK_S)
        for child, code in _ended(children):
            children.remove(child)
            if child.step is None:
                _tell(events, event="validated", code=code)
                continue
            state.record_exit(store, child.step.kind, child.step.key, child.pid, code)
            _tell(events, event="exited", kind=child.step.kind, key=child.step.key, pid=child.pid, code=code)


def _begin(request: Mapping[str, Any], store: Store, events: Any) -> Child:
    if "validate" in request:
        folder = Path(request["validate"])
        return Child(_fork(lambda: validate.answered(folder), events), None)
    step = Step.from_json(json.dumps(request["step"]))
    child = Child(_fork(lambda: exit_code(step, store, warm=True), events), step)
    _tell(events, event="started", kind=step.kind, key=step.key, pid=child.pid)
    return child


def _ended(children: list[Child]) -> list[tuple[Child, int]]:
    """Those that are dead now, with their exit codes; negative for a signal."""
    ended = []
    for child in children:
        pid, status = os.waitpid(child.pid, os.WNOHANG)
        if pid:
            code = os.waitstatus_to_exitcode(status)
            ended.append((child, code))
            if code < 0:  # killed, and nobody else will end what it had started
                _kill_group(child.pid)
    return ended


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _tell(events: Any, **event: Any) -> None:
    with contextlib.suppress(BrokenPipeError):  # the launcher is gone: its children are still looked after
        events.write(json.dumps(event) + "\n")
        events.flush()


def _fork(work: Callable[[], int], events: Any) -> int:
    """The pid of a child that does this and ends with the code it returns."""
    pid = os.fork()
    if pid:
        _lead_a_group(pid)
        return pid
    code = 1
    try:
        _lead_a_group(0)
        stop.forget()
        _cut_off_from_the_launcher(events)
        code = work()
        atexit._run_exitfuncs()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _lead_a_group(pid: int) -> None:
    """Called on both sides of the fork, so that the group exists for the child and for whoever is told of it."""
    with contextlib.suppress(PermissionError, ProcessLookupError):  # the other side was first, or the child is dead
        os.setpgid(pid, pid)


def _cut_off_from_the_launcher(events: Any) -> None:
    """Its pipes are the parent's: a child that held them would keep a dead launcher's readers waiting."""
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.close(nothing)
    events.close()
