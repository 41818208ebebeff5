"""A process that has imported MODULES, and forks into programs: `fork_server_script.py MODULE... < requests`.

Each line of standard input describes a program; its process id and, later, its exit code are printed as lines.
Standard library only, so that it runs without site-packages, too.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import random
import runpy
import sys
from pathlib import Path
from typing import Any, NoReturn

run_to_end = runpy.run_path(str(Path(__file__).with_name("run_to_end.py")))["run_to_end"]


def serve() -> None:
    """Until standard input ends."""
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _become(request)
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def _become(request: dict[str, Any]) -> NoReturn:
    """The program that the request describes."""
    for number, name in enumerate(("/dev/null", request["output"], request["errors"])):
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT if number else os.O_RDONLY)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    random.seed()
    sys.argv = request["words"]
    run_to_end(lambda: runpy.run_path(sys.argv[0], run_name="__main__"))
    raise AssertionError("a program ends its process")


if __name__ == "__main__":
    for module in sys.argv[1:]:
        importlib.import_module(module)
    gc.freeze()
    print(flush=True)
    serve()
