"""Run axosweep in forks of a process that has its imports: the same code as in a process of its own, a second faster.

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
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.forked_trainer import popen

COMMAND = (sys.executable, str(Path(popen.__file__).with_name("command_script.py")))
"""How a test starts `axosweep` with subprocess where it has to do with the process: it is a fork all the same."""

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["tests.command_composed"])


def run(
    words: Sequence[str], folder: Path, variables: Mapping[str, str], timeout_s: float
) -> subprocess.CompletedProcess[str]:
    """Run `axosweep WORDS` in that folder, with exactly these variables.

    Raises:
        subprocess.TimeoutExpired: it took longer, and was killed.
    """
    (done,) = run_in_turn([words], folder, variables, timeout_s)
    return done


def run_in_turn(
    lines: Sequence[Sequence[str]], folder: Path, variables: Mapping[str, str], timeout_s: float
) -> list[subprocess.CompletedProcess[str]]:
    """Run several commands in one process, one after the other.

    Raises:
        subprocess.TimeoutExpired: all together took longer, and were killed.
    """
    with tempfile.TemporaryDirectory(prefix="axosweep-tests-") as name:
        place = Path(name)
        words = [list(line) for line in lines]
        process = _FORKS.Process(target=_main, args=(words, folder, dict(variables), place))
        process.start()
        try:
            process.join(timeout_s)
            if process.exitcode is None:
                raise subprocess.TimeoutExpired(words[-1], timeout_s, *_output(place, len(words) - 1))
        finally:
            process.kill()
            process.join()
        codes = (place / "codes").read_text().split() if (place / "codes").exists() else []
        ended = [int(code) for code in codes] + [process.exitcode]  # a command that killed the process has no code
        return [
            subprocess.CompletedProcess(["axosweep", *line], code, *(text.decode() for text in _output(place, number)))
            for number, (line, code) in enumerate(zip(words, ended, strict=False))
        ]


def _output(place: Path, number: int) -> tuple[bytes, bytes]:
    out, err = (place / f"{kind}-{number}" for kind in ("out", "err"))
    return out.read_bytes() if out.exists() else b"", err.read_bytes() if err.exists() else b""


def _main(lines: list[list[str]], folder: Path, variables: dict[str, str], place: Path) -> None:
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(folder)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
    random.seed()
    sys.dont_write_bytecode = False  # multiprocessing passes on the flag with which pytest was started
    popen.install()
    from runner.cli import main

    for number, words in enumerate(lines):
        for descriptor, kind in ((1, "out"), (2, "err")):
            with (place / f"{kind}-{number}").open("wb") as file:
                os.dup2(file.fileno(), descriptor)
        sys.argv = ["axosweep", *words]
        last = number == len(lines) - 1
        try:
            code = _exit_code(main)
        finally:
            if last:
                atexit._run_exitfuncs()
        sys.stdout.flush()
        with (place / "codes").open("a") as file:
            file.write(f"{code}\n")


def _exit_code(main: Callable[[], int]) -> int:
    """The exit code as the interpreter derives it from SystemExit, or from an error, which it prints."""
    try:
        return main()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
