"""Fork a process that cannot write its last output, and print how it ended."""

from __future__ import annotations

import os
import sys

from modal_app.process.forked import leave

if not (pid := os.fork()):
    try:
        sys.stdout = open("/dev/full", "w")  # noqa: SIM115  # closing it is what fails
        sys.stdout.write("last words")
        leave(3)
    except OSError:
        os._exit(99)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
