"""Compiles the modules of an environment, with a bar: tens of thousands of files take minutes on a busy machine."""

from __future__ import annotations

import subprocess
from pathlib import Path

from runner.console.transfer import progress
from runner.environment import bytecode_script
from runner.errors import SweepError


def compile_modules(python: Path) -> None:
    """Compile the modules in the environment of this Python. Modules that are compiled already are left alone."""
    command = [str(python), "-I", bytecode_script.__file__]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        total = int(process.stdout.readline() or 0)
        with progress(total, "compiling", unit="modules") as watch:
            for line in process.stdout:
                watch(int(line))
    if process.returncode != 0:
        raise SweepError(
            f"The modules of {python.parent.parent} could not be compiled (code {process.returncode}); the message is "
            "above. Run it again; what is compiled stays."
        )
