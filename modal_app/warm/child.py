"""Fork a child of the preloaded trainer, which then runs as if its command had started it as a fresh process."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import traceback
from collections.abc import Callable

from modal_app.process import stop
from modal_app.process.forked import leave
from modal_app.store import out_of_memory
from modal_app.warm.context import Context
from modal_app.warm.preload import become_a_fresh_process


def fork(work: Callable[[], int], context: Context, cut_off: Callable[[], None]) -> int:
    """The pid of a child that runs `work` and ends with the code that it returns. It leads its own process group.

    `cut_off` closes, in the child, what belongs to its parent.
    """
    # Signals are blocked until the child has removed its parent's handlers.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, stop.SIGNALS)
    try:
        pid = os.fork()
    except BaseException:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        raise
    if pid:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        _lead_a_group(pid)
        return pid
    code = 1
    try:
        _lead_a_group(0)
        stop.forget()
        cut_off()
        context.enter()
        become_a_fresh_process()
        code = work()
        atexit._run_exitfuncs()
    except BaseException as error:
        traceback.print_exc()
        code = out_of_memory.EXIT_CODE if out_of_memory.is_out_of_memory(error) else code
    finally:
        leave(code)


def _lead_a_group(pid: int) -> None:
    """Called on both sides of the fork, so that the group exists as soon as either side continues."""
    with contextlib.suppress(PermissionError, ProcessLookupError):  # the other process was first, or the child is dead
        os.setpgid(pid, pid)
