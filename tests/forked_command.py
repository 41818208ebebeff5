"""Run axosweep in forks of a process that has its imports: the same code as in a process of its own, a second sooner.

A command that is to be killed, signalled or watched on a terminal is started as users start it, by
`axosweep.Axosweep.start` and `shown`.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.forked_trainer import popen

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["tests.command_imports"])


def run(
    words: Sequence[str], folder: Path, variables: Mapping[str, str], timeout_s: float
) -> subprocess.CompletedProcess[str]:
    """Run `axosweep WORDS` in that folder, with exactly these variables.

    Raises:
        subprocess.TimeoutExpired: it took longer, and was killed.
    """
    with tempfile.TemporaryDirectory(prefix="axosweep-tests-") as place:
        out, err = Path(place) / "out", Path(place) / "err"
        process = _FORKS.Process(target=_main, args=(list(words), folder, dict(variables), out, err))
        process.start()
        try:
            process.join(timeout_s)
            if process.exitcode is None:
                raise subprocess.TimeoutExpired(list(words), timeout_s, out.read_bytes(), err.read_bytes())
        finally:
            process.kill()
            process.join()
        return subprocess.CompletedProcess(["axosweep", *words], process.exitcode, out.read_text(), err.read_text())


def _main(words: list[str], folder: Path, variables: dict[str, str], out: Path, err: Path) -> None:
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(folder)
    for descriptor, path in ((1, out), (2, err)):
        with path.open("wb") as file:
            os.dup2(file.fileno(), descriptor)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
    random.seed()
    popen.install()
    sys.argv = ["axosweep", *words]
    from runner.cli import main

    try:
        sys.exit(main())
    finally:
        atexit._run_exitfuncs()
