"""Commands of Modal's own command line, one after the other: `modal_commands_script.py < WORDS.json`.

Each is a fork of this process, which has imported what takes most of their time. Prints their outputs as JSON.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import tempfile
import traceback

from modal.__main__ import main

IMPORTED_LATE = ("app", "container", "secret", "token", "volume")


def output(words: list[str]) -> str:
    """Of a command; ends this process if it fails."""
    with tempfile.TemporaryFile("w+") as written:
        pid = os.fork()
        if pid == 0:
            os.dup2(written.fileno(), 1)
            sys.argv = ["modal", *words]
            _end_with(_exit_code())
        _, status = os.waitpid(pid, 0)
        written.seek(0)
        if status != 0:
            sys.exit(f"modal {' '.join(words)} ended with {os.waitstatus_to_exitcode(status)}: {written.read()}")
        return written.read()


def _exit_code() -> int:
    try:
        main()  # type: ignore[no-untyped-call]
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _end_with(code: int) -> None:
    sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    for name in IMPORTED_LATE:
        importlib.import_module(f"modal.cli.{name}")
    print(json.dumps([output(words) for words in json.load(sys.stdin)]))
