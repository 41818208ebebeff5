"""Compiles every module of the environment of the Python that runs it. Prints how many there are, then how many are
done at each step. That Python has none of our packages, so this is standard library only.
"""

from __future__ import annotations

import compileall
import os
import sysconfig
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

AT_ONCE = 50


def main() -> None:
    folders = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    files = [str(path) for folder in folders for path in sorted(Path(folder).rglob("*.py"))]
    print(len(files), flush=True)
    chunks = [files[at : at + AT_ONCE] for at in range(0, len(files), AT_ONCE)]
    # What cannot be compiled (a template, Python 2) is not imported either.
    with ProcessPoolExecutor(os.process_cpu_count() if hasattr(os, "process_cpu_count") else os.cpu_count()) as pool:
        for done in pool.map(_compile, chunks):
            print(done, flush=True)


def _compile(files: list[str]) -> int:
    for file in files:
        compileall.compile_file(file, quiet=2)
    return len(files)


if __name__ == "__main__":
    main()
