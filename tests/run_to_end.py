"""Run a program in a fork as an interpreter runs its main module, then end the process. Standard library only."""

import atexit
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import NoReturn


def run_to_end(program: Callable[[], object]) -> NoReturn:
    """End with the program's exit code: 1 after an error, which is printed; by SIGINT after a KeyboardInterrupt."""
    code = 0
    try:
        program()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in filter(None, (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)):
        with contextlib.suppress(OSError, ValueError):  # its reader has ended, or it is closed
            stream.flush()
    os._exit(code)
