"""Which Axolotl keys a user's own config files set, for the chosen options of groups. Does not import Hydra."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from runner.config.project import CONF, SWEEPS, Project
from runner.config.shipped import shipped_root
from runner.config.vocabulary import AXOLOTL, load_yaml, package_of


def own_keys(choices: Mapping[str, Any], project: Project) -> frozenset[str]:
    """The keys directly below `axolotl` in the sweep file, even if it is a shipped one, and in those of the user's own
    files that these choices read.
    """
    files, shipped = project.config_files(), shipped_root() / CONF
    reached = _reached([_path(group, option) for group, option in choices.items()], files)
    found = {key for path in reached if not files[path].is_relative_to(shipped) for key in _keys(path, files[path])}
    if isinstance(sweep := choices.get(SWEEPS), str) and (file := project.sweep_files().get(sweep)):
        found |= set(_keys(Path(), file))
    return frozenset(found)


def _path(group: str, option: Any) -> Path:
    return Path(group.partition("@")[0]) / f"{option}.yaml"


def _reached(paths: list[Path], files: Mapping[Path, Path]) -> set[Path]:
    """These config files and all that their defaults lists name."""
    reached: set[Path] = set()
    while paths:
        path = paths.pop()
        if path in files and path not in reached:
            reached.add(path)
            paths += _named_by(path, load_yaml(files[path].read_text(encoding="utf-8"), files[path]))
    return reached


def _named_by(path: Path, content: Mapping[str, Any]) -> Iterator[Path]:
    """What its defaults list adds. What it overrides is among the choices already."""
    for entry in content.get("defaults") or ():
        pairs = entry.items() if isinstance(entry, dict) else [(None, entry)]
        for group, option in pairs:
            if group is None:
                yield path.parent / f"{option}.yaml"
            elif not str(group).startswith("override "):
                name = str(group).removeprefix("optional ").strip()
                yield _path(name[1:], option) if name.startswith("/") else path.parent / _path(name, option)


def _keys(path: Path, file: Path) -> Iterator[str]:
    """`path`: below its conf folder."""
    text = file.read_text(encoding="utf-8")
    content: Any = load_yaml(text, file)
    package = package_of(path, text)
    if package != AXOLOTL:
        content = content.get(AXOLOTL) if not package else None
    if isinstance(content, dict):
        yield from map(str, content)
