"""Python modules of the user's: found as Python finds them, with all files that belong to them.

A module is a file, a package with all its files, or a folder without `__init__.py` with its Python files. The modules
that it imports and that are found in the same folders belong to it, and so on. Imports are read from the source, so a
name that is made up while the program runs is not seen. Nothing is imported here.
"""

from __future__ import annotations

import ast
import functools
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from modal_app.store.content import FileState, files_below
from runner.config.vocabulary import BASE_OPTION
from runner.errors import SweepError

BASE = f"{BASE_OPTION}="
MOST_MB = 64
"""More than this is data, not code."""


@dataclass(frozen=True, slots=True)
class Module:
    """A top-level module."""

    name: str
    path: Path
    """Its file or folder."""

    def files(self) -> dict[str, Path]:
        """Its files by their paths below the folder that the module was found in."""
        if self.path.is_file():
            return {self.path.name: self.path}
        complete = (self.path / "__init__.py").is_file()
        found = [file for file in files_below(self.path) if complete or file.suffix == ".py"]
        return {file.relative_to(self.path.parent).as_posix(): file for file in found}


def folders_of(overrides: Sequence[str]) -> tuple[Path, ...]:
    """Where the modules of a run are looked for: in the current folder, next to the config that base=FILE names, and in
    PYTHONPATH."""
    named = [one.removeprefix(BASE) for one in overrides if one.startswith(BASE)]
    bases = [Path(_unquoted(one)).expanduser().parent for one in named]
    entries = [Path(entry) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    return tuple(dict.fromkeys(one.absolute() for one in (Path(), *bases, *entries)))


def find_module(dotted: str, folders: Sequence[Path]) -> Module | None:
    """The top-level module of a dotted name; None for one of Python's own, and for one that none of the folders has."""
    top, _, rest = dotted.partition(".")
    if top in sys.stdlib_module_names:
        return None
    for folder in folders:
        for path in (folder / top, folder / f"{top}.py"):
            if (path / "__init__.py").is_file() or (path.suffix and path.is_file()):
                return Module(top, path)
    for folder in folders:  # Python takes a folder without __init__.py only if there is nothing else of that name
        inside = folder / top / rest.partition(".")[0]
        if rest and (inside.with_name(f"{inside.name}.py").is_file() or any(inside.glob("*.py"))):
            return Module(top, folder / top)
    return None


def with_imported(named: Sequence[Module], folders: Sequence[Path]) -> list[Module]:
    """The modules, each once, and those that they import."""
    found = {one.name: one for one in named}
    waiting = list(found.values())
    while waiting:
        for file in waiting.pop().files().values():
            for dotted in _imports(file) if file.suffix == ".py" else ():
                one = find_module(dotted, folders)
                if one is not None and one.name not in found:
                    found[one.name] = one
                    waiting.append(one)
    return list(found.values())


def files_of(modules: Sequence[Module]) -> Mapping[str, Path]:
    """All files of these modules. Raises SweepError for those that cannot be read, or are too large for code."""
    files: dict[str, Path] = {}
    for one in modules:
        try:
            own = one.files()
            size_mb = sum(file.stat().st_size for file in own.values()) / 1e6
        except OSError as error:
            raise SweepError(f"{error.filename or one.path} cannot be read: {error.strerror}.") from error
        if size_mb > MOST_MB:
            raise SweepError(
                f"The Python package {one.path} has {size_mb:.0f} MB, more than {MOST_MB}, and all its files would be "
                "copied for every run. Move what is not code out of it."
            )
        files |= own
    return files


def _imports(file: Path) -> Sequence[str]:
    state = FileState.of(file)
    return _parsed(file, state.size, state.mtime_ns, state.inode)


@functools.lru_cache(maxsize=1024)
def _parsed(file: Path, *_state: int) -> Sequence[str]:
    """The dotted names that a file imports, without relative ones: those are in its own package."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return ()  # the trainer's Python reports it
    return tuple(dict.fromkeys(name for node in ast.walk(tree) for name in _imported(node)))


def _imported(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text
