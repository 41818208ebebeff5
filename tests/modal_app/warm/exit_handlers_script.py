"""Fork a process that runs its exit handlers, and print whether its parent's temporary folder is still there."""

from __future__ import annotations

import atexit
import os
import tempfile

from modal_app.patches.apply import apply_fork_patches

folder = tempfile.TemporaryDirectory()
if not (pid := os.fork()):
    apply_fork_patches()
    atexit._run_exitfuncs()
    os._exit(0)
os.waitpid(pid, 0)
print(os.path.isdir(folder.name))
