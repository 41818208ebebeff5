"""Run a program of the trainer's with another version of a library, whether it has been imported or not.

`python other_version_script.py MODULE PROGRAM WORDS`; MODULE is one of `other_version/sitecustomize.py`.
"""

from __future__ import annotations

import importlib
import runpy
import sys
from pathlib import Path

CUSTOMIZE = Path(__file__).with_name("other_version") / "sitecustomize.py"

if __name__ == "__main__":
    _, gone, *sys.argv = sys.argv
    runpy.run_path(str(CUSTOMIZE))["GONE"][gone](importlib.import_module(gone))
    runpy.run_path(sys.argv[0], run_name="__main__")
