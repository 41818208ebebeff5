"""The containers' Python: where its files are, and how Modal's client gets on its path."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import modal

# An interpreter without Modal gets the client's packages after its own on its path: its own versions stay in effect,
# and the programs that the entrypoint starts do not see the added packages.
_APPENDING = (
    "import runpy, sys; sys.path.append({packages!r}); "
    "runpy.run_module('modal._container_entrypoint', run_name='__main__', alter_sys=True)"
)
_SCRIPT = Path(__file__).with_name("interpreter_script.py")


@dataclass(frozen=True, slots=True)
class Interpreter:
    """`folders` must be readable inside a container."""

    python: Path
    folders: tuple[Path, ...]
    entrypoint: tuple[str, ...]
    appended: tuple[str, ...]
    """Packages that it has only as Modal's entrypoint."""


@cache
def inspect_interpreter(python: Path) -> Interpreter:
    """Run it to get these facts, once per interpreter."""
    answer = subprocess.run([python, "-I", _SCRIPT], check=True, capture_output=True, text=True).stdout
    prefix, base_prefix, version, has_modal = json.loads(answer)
    folders = {Path(prefix), Path(base_prefix), python.resolve().parent.parent, Path(base_prefix).resolve()}
    entrypoint: tuple[str, ...] = ("-m", "modal._container_entrypoint")
    appended: tuple[str, ...] = ()
    if not has_modal:
        packages = Path(modal.__file__).parent.parent
        folders.add(packages)
        if f"python{version[0]}.{version[1]}" not in packages.parts:
            raise ValueError(f"{python} is Python {version}; the client's compiled packages in {packages} are not")
        appended = (str(packages),)
        entrypoint = ("-c", _APPENDING.format(packages=str(packages)))
    return Interpreter(python, tuple(sorted(folders)), entrypoint, appended)
