"""What can be said on the command line: groups and their options, config nodes, Axolotl's keys. No Hydra."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from runner.errors import SweepError
from runner.fields import AxolotlFields, axolotl_fields
from runner.shipped import shipped_root

SWEEPS = "sweeps"
AXOLOTL = "axolotl"
MODEL_FACTS = "model"

Nodes = Mapping[str, "Nodes"]
"""Config keys as a tree; a leaf is empty."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    groups: Mapping[str, tuple[str, ...]]
    """Each config group with its options; `sweeps` is one of them."""
    chosen: Mapping[str, str]
    """The groups in the defaults list, with what they choose."""
    nodes: Nodes
    """Every config key that may be set, outside `axolotl`. A model's facts are its file's business."""
    fields: AxolotlFields
    pure_sweeps: frozenset[str] = frozenset()
    """The sweep files that hold axes and nothing else, so that a job of theirs is described by its values."""


def read_vocabulary(root: Path | None = None) -> Vocabulary:
    """From the folders conf/ and sweeps/ below `root` (the shipped ones when not given)."""
    root = shipped_root() if root is None else root
    conf = root / "conf"
    groups = {
        str(folder.relative_to(conf)): _options(folder)
        for folder in sorted(conf.rglob("*"))
        if folder.is_dir() and _options(folder)
    }
    nodes: dict[str, Any] = {}
    for file in sorted(conf.rglob("*.yaml")):
        package, content = _read(file, conf)
        _merge(nodes, _below(package, content))
    for name in ("hydra", AXOLOTL, MODEL_FACTS):
        nodes.pop(name, None)
    return Vocabulary(
        groups={**groups, SWEEPS: _options(root / SWEEPS)},
        chosen=_chosen(conf / "config.yaml"),
        nodes=nodes,
        fields=axolotl_fields(),
        pure_sweeps=frozenset(file.stem for file in (root / SWEEPS).glob("*.yaml") if _only_axes(file)),
    )


def _only_axes(file: Path) -> bool:
    try:
        content: Any = load_yaml(file.read_text(encoding="utf-8"), file)
    except SweepError:
        return False  # told when somebody asks for it
    for name in ("hydra", "sweeper", "params"):
        if not isinstance(content, dict) or set(content) != {name}:
            return False
        content = content[name]
    return True


def _options(folder: Path) -> tuple[str, ...]:
    return tuple(sorted((file.stem for file in folder.glob("*.yaml")), key=_natural))


def _natural(option: str) -> tuple[str, int]:
    """r8 before r16."""
    digits = len(option) - len(option.rstrip("0123456789"))
    return (option[:-digits], int(option[-digits:])) if digits else (option, -1)


def _read(file: Path, conf: Path) -> tuple[str, Mapping[str, Any]]:
    """A config file's package, and its content without the defaults list."""
    text = file.read_text(encoding="utf-8")
    content = load_yaml(text, file)
    content.pop("defaults", None)
    first = text.partition("\n")[0]
    if first.startswith("# @package "):
        package = first.removeprefix("# @package ").strip()
        return ("" if package == "_global_" else package), content
    folder = file.parent.relative_to(conf)
    return ("" if folder == Path() else ".".join(folder.parts)), content


def load_yaml(text: str, file: Path) -> dict[str, Any]:
    """A YAML mapping; empty for anything else. Raises SweepError for what is not YAML."""
    try:
        content = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as error:
        raise SweepError(f"{file} is not valid YAML: {error}") from error
    return content if isinstance(content, dict) else {}


def _below(package: str, content: Mapping[str, Any]) -> Mapping[str, Any]:
    for name in reversed(package.split(".") if package else []):
        content = {name: content}
    return content


def _merge(into: dict[str, Any], content: Mapping[str, Any]) -> None:
    for name, value in content.items():
        inner = into.setdefault(str(name), {})
        if isinstance(value, dict):
            _merge(inner, value)


def _chosen(config: Path) -> Mapping[str, str]:
    defaults = load_yaml(config.read_text(encoding="utf-8"), config).get("defaults", [])
    return dict(_choices(defaults))


def _choices(defaults: Sequence[Any]) -> Iterator[tuple[str, str]]:
    for entry in defaults:
        for key, option in entry.items() if isinstance(entry, dict) else ():
            if not key.startswith("override "):
                yield key.removeprefix("optional ").strip(), "" if option is None else str(option)
