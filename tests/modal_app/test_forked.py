"""A forked process ends where it is told to, whatever becomes of what it has to say."""

from __future__ import annotations

import subprocess
import sys

from tests.modal_app.steps import PACKAGE


def test_a_forked_process_that_cannot_say_its_last_words_ends_all_the_same() -> None:
    """On a full disk. It would go on as a second one of what it was forked from."""
    code = """
import os, sys
from modal_app.process.forked import leave
if not (pid := os.fork()):
    try:
        sys.stdout = open("/dev/full", "w")
        sys.stdout.write("last words")
        leave(3)
    except OSError:
        os._exit(99)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=True)
    assert done.stdout == "3\n", done.stderr
