"""The Python that a config makes a trainer run: the user's modules that it names, and the code of its models.

The user's modules are one input, a folder with all their files (runner.keys.modules). So a key covers their content.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modal_app.store.content import file_sha256, folder_sha256
from modal_app.store.user_code import CONFIG_KEY
from runner.keys.inputs import hub_name, is_dataset, look_for_inputs
from runner.keys.modules import Module, files_of, find_module, folders_of, with_imported
from runner.types import Experiment, Input, InputKind

TRUSTS = "trust_remote_code"
NAMES_CODE = re.compile(r"(^plugins|reward_funcs)\.\d+$|rollout_func$|^trainer_cls$")
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
    """Of the file, or of all files of the folder."""
    commit: str | None = None
    """Of a repository of the hub."""

    def __str__(self) -> str:
        what = f"{self.at}={self.name}"
        if self.file is not None:
            return f"{what}: {self.file} (sha256 {(self.sha256 or '')[:16]})"
        if self.at == TRUSTS:
            return f"{what}: the repository's own Python, at {self.commit or 'no known commit'}"
        return f"{what}: in the trainer's environment, or nowhere"


def find_code(experiment: Experiment, inputs: Sequence[Input]) -> list[Code]:
    """In the order of the config, then what its modules import, then the code of trusted models."""
    folders = folders_of(experiment.overrides)
    named = _named(experiment.axolotl, {one.text for one in inputs}, folders)
    modules = with_imported([one for _, _, one in named if one is not None], folders)
    directly = {one for _, _, one in named}
    return [
        *(Code(at, name, *_content(one)) for at, name, one in named if one is not None or NAMES_CODE.search(at)),
        *(Code("imported", one.name, *_content(one)) for one in modules if one not in directly),
        *(_of_models(inputs) if experiment.axolotl.get(TRUSTS) else ()),
    ]


def code_input(experiment: Experiment) -> Input | None:
    """The user's modules that a run imports, as one input with its identity; None without any.

    Raises SweepError for files that cannot be read.
    """
    read, _ = look_for_inputs(experiment.axolotl)
    folders = folders_of(experiment.overrides)
    named = _named(experiment.axolotl, {one.text for one in read}, folders)
    modules = with_imported([one for _, _, one in named if one is not None], folders)
    if not modules:
        return None
    files = files_of(modules)
    identity = folder_sha256({name: file_sha256(path) for name, path in files.items()})
    paths = tuple((name, str(path)) for name, path in files.items())
    return Input(CONFIG_KEY, ", ".join(one.path.name for one in modules), InputKind.CODE, identity, files=paths)


def _named(axolotl: Mapping[str, Any], read: set[str], folders: Sequence[Path]) -> list[tuple[str, str, Module | None]]:
    """The dotted names of a config that are, or may be, modules. `read`: texts that name data, such as `rows.jsonl`."""
    texts = [(at, name) for at, name in _texts(axolotl, "") if _DOTTED.match(name) and name not in read]
    return [(at, name, find_module(name, folders)) for at, name in texts if not name.startswith(_AXOLOTL)]


def _content(module: Module | None) -> tuple[str, str] | tuple[()]:
    if module is None:
        return ()
    sums = {name: file_sha256(path) for name, path in module.files().items()}
    return str(module.path), sums[module.path.name] if module.path.is_file() else folder_sha256(sums)


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


def _of_models(inputs: Sequence[Input]) -> Iterator[Code]:
    """The Python files of local models, and the repositories of others: a trusted model's loader imports them."""
    for found in inputs:
        if is_dataset(found.at):
            continue
        if found.kind is InputKind.HUB:
            yield Code(TRUSTS, hub_name(found), commit=found.identity)
        elif found.kind is InputKind.FOLDER:
            folder = Path(found.text).expanduser()
            yield from (Code(TRUSTS, found.text, str(file), file_sha256(file)) for file in sorted(folder.rglob("*.py")))
