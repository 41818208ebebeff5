"""The Python of others that a config makes a trainer run: modules that it names, and the code of its models."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.keys.inputs import hub_name, is_dataset
from runner.types import Input, InputKind

TRUSTS = "trust_remote_code"
NAMES_CODE = re.compile(r"(^plugins|reward_funcs)\.\d+$")
"""Keys that always name modules. Any other key may: a value that leads to a local module is taken for one."""
_DOTTED = re.compile(r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$")
_AXOLOTL = "axolotl."


@dataclass(frozen=True, slots=True)
class Code:
    """Code that is run as this user."""

    at: str
    """The key that names it."""
    name: str
    file: str | None = None
    """The module, the package's folder, or the model's file; None if it is not on this machine, or is installed in the
    trainer's environment."""
    sha256: str | None = None
    """Of the file, or of all Python files of the folder."""
    commit: str | None = None
    """Of a repository of the hub."""

    def __str__(self) -> str:
        what = f"{self.at}={self.name}"
        if self.file is not None:
            return f"{what}: {self.file} (sha256 {(self.sha256 or '')[:16]})"
        if self.at == TRUSTS:
            return f"{what}: the repository's own Python, at {self.commit or 'no known commit'}"
        return f"{what}: in the trainer's environment, or nowhere"


def find_code(axolotl: Mapping[str, Any], inputs: Sequence[Input]) -> list[Code]:
    """In the order of the config. Modules are looked for in PYTHONPATH, as by the trainer, and in this folder: the
    trainer does not look there, but a file of that name is most likely meant.
    """
    read = {one.text for one in inputs}  # `rows.jsonl` looks like a module's name
    modules = [one for one in _modules(axolotl) if one.name not in read]
    return [*modules, *(_of_models(inputs) if axolotl.get(TRUSTS) else ())]


def _modules(axolotl: Mapping[str, Any]) -> Iterator[Code]:
    for at, name in _texts(axolotl, ""):
        if not _DOTTED.match(name) or name.startswith(_AXOLOTL):
            continue
        path = _find_module(name.partition(".")[0])
        if path is not None:
            yield Code(at, name, str(path), _sha256(path))
        elif NAMES_CODE.search(at):
            yield Code(at, name)


def _texts(value: Any, at: str) -> Iterator[tuple[str, str]]:
    match value:
        case str():
            yield at, value
        case Mapping():
            for key, item in value.items():
                yield from _texts(item, f"{at}.{key}" if at else str(key))
        case list() | tuple():
            for index, item in enumerate(value):
                yield from _texts(item, f"{at}.{index}")


def _find_module(module: str) -> Path | None:
    for entry in (*os.environ.get("PYTHONPATH", "").split(os.pathsep), ""):
        folder = Path(entry or ".").absolute()
        if any((folder / module).glob("*.py")):
            return folder / module
        if (folder / f"{module}.py").is_file():
            return folder / f"{module}.py"
    return None


def _of_models(inputs: Sequence[Input]) -> Iterator[Code]:
    """The Python files of local models, and the repositories of others: a trusted model's loader imports them."""
    for found in inputs:
        if is_dataset(found.at):
            continue
        if found.kind is InputKind.HUB:
            yield Code(TRUSTS, hub_name(found), commit=found.identity)
        elif found.kind is InputKind.FOLDER:
            folder = Path(found.text).expanduser()
            yield from (Code(TRUSTS, found.text, str(file), _sha256(file)) for file in sorted(folder.rglob("*.py")))


def _sha256(path: Path) -> str:
    """Of a file, or of the Python files below a folder, with their names."""
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*.py")):
        digest.update(f"{file.relative_to(path).as_posix()}\0{_sha256(file)}\n".encode())
    return digest.hexdigest()
