"""A forked process ends where it should, whether or not its output can be written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_a_forked_process_that_cannot_say_its_last_words_ends_all_the_same() -> None:
    """On a full disk. Otherwise, it would go on as a copy of its parent."""
    script = Path(__file__).with_name("full_disk_script.py")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert done.stdout == "3\n", done.stderr
