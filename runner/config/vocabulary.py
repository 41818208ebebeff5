"""What a command line may contain: groups and their options, config nodes, Axolotl's keys. Does not import Hydra."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from runner.config.fields import AxolotlFields, axolotl_fields
from runner.config.project import ROOT_CONFIG, SWEEPS, BaseSource, Project, current_project
from runner.errors import SweepError

AXOLOTL = "axolotl"
EXPERIMENT = "experiment"
FROM = "from"
BASE_OPTION = "base"
"""base=FILE starts from an Axolotl config, as it is. To Hydra, it is a group whose options are the imported files."""
MODEL_FACTS, DATASET_FACTS = "model", "sizes"
OLD_ATTENTION = (
    "xformers_attention",
    "sage_attention",
    "flex_attention",
    "flash_attention",
    "sdp_attention",
    "eager_attention",
)
"""Flags that Axolotl had before attn_implementation. It refuses them next to that key, whatever their values
(normalize_attn_implementation)."""

Nodes = Mapping[str, "Nodes"]
"""Config keys as a tree; a leaf is empty."""

_HEADER = re.compile(r"\s*#[ \t]*@package[ \t]+(\S+)[ \t\r]*$", re.M)
"""Where a file's keys belong, as Hydra reads it: before it, there may be empty lines only."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    groups: Mapping[str, tuple[str, ...]]
    """Each config group with its options; `sweeps` is one of them."""
    chosen: Mapping[str, str]
    """The groups in the defaults list, with what they choose."""
    nodes: Nodes
    """Every config key that may be set, outside `axolotl`, without the facts of a model."""
    fields: AxolotlFields
    pure_sweeps: frozenset[str] = frozenset()
    """The sweep files that have only axes: the values of a job describe it completely."""
    recipes: tuple[str, ...] = ()
    """The groups in the defaults list that write into `axolotl` by default. A complete config does without them."""
    bases: Mapping[str, BaseSource] = field(default_factory=dict)
    """Options of `experiment` that stand for base=FILE or from=RUN."""
    read: frozenset[str] = frozenset()
    """The keys at the top of a composed config that something reads."""


def read_vocabulary(project: Project | None = None) -> Vocabulary:
    """From the files of conf/ and sweeps/: a user's own, and the shipped ones."""
    project = current_project() if project is None else project
    read = _vocabulary(_seen(project.config_files()), _seen(project.sweep_files()))
    return replace(read, fields=axolotl_fields(), bases=project.bases)


Seen = tuple[tuple[str, str, tuple[int, int]], ...]
"""Files as they are now: what each is known by, where it is, and what differs once it has changed."""


def _seen(files: Mapping[Any, Path]) -> Seen:
    return tuple((str(name), str(file), _stamp(str(file))) for name, file in files.items())


def _stamp(file: str) -> tuple[int, int]:
    seen = os.stat(file)  # a command asks for it two hundred times: Path.stat() takes twice as long
    return seen.st_mtime_ns, seen.st_size


@functools.lru_cache(maxsize=16)
def _vocabulary(config_files: Seen, sweep_files: Seen) -> Vocabulary:
    """Cached, since a command reads the vocabulary of ninety files twice."""
    files = {Path(path): Path(file) for path, file, _ in config_files}
    contents = {
        Path(path): content
        for path, file, stamp in config_files
        if (content := _content_as_of(Path(path), Path(file), stamp)) is not None
    }
    nodes: dict[str, Any] = {}
    for content in contents.values():
        _merge(nodes, content)
    for name in ("hydra", AXOLOTL, MODEL_FACTS, DATASET_FACTS):
        nodes.pop(name, None)
    chosen = _chosen(files[Path(ROOT_CONFIG)])
    writers = {path.parent for path, content in contents.items() if AXOLOTL in content}
    writing = [group for group in chosen if Path(group) in writers]
    return Vocabulary(
        groups={**_groups(files), SWEEPS: _sorted(name for name, _, _ in sweep_files)},
        chosen=chosen,
        nodes=nodes,
        fields=axolotl_fields(),
        pure_sweeps=frozenset(name for name, file, stamp in sweep_files if _only_axes_as_of(Path(file), stamp)),
        recipes=tuple(group for group in writing if chosen[group] and group not in (BASE_OPTION, EXPERIMENT)),
        read=frozenset({*contents.get(Path(ROOT_CONFIG), {}), *({*chosen} - {*writing, BASE_OPTION, EXPERIMENT})}),
    )


def _groups(files: Iterable[Path]) -> dict[str, tuple[str, ...]]:
    options: dict[str, list[str]] = {}
    for path in files:
        if path.parent != Path():
            options.setdefault(path.parent.as_posix(), []).append(path.stem)
    return {group: _sorted(options[group]) for group in sorted(options)}


@functools.cache
def _content_as_of(path: Path, file: Path, stamp: tuple[int, int]) -> Mapping[str, Any] | None:
    """What a config file adds to a composed config. None for one that cannot be read, which is reported when used."""
    try:
        package, content = _read(path, file)
    except (SweepError, UnicodeDecodeError):
        return None
    return _below(package, content)


@functools.cache
def _only_axes_as_of(file: Path, stamp: tuple[int, int]) -> bool:
    try:
        content = load_yaml(file.read_text(encoding="utf-8"), file)
    except (SweepError, UnicodeDecodeError):
        return False  # reported when it is used
    hydra = content.pop("hydra", None)
    content.pop("search", None)  # describes the sweep, not its runs
    listed = content.get("defaults") or []
    if isinstance(listed, list) and all(isinstance(one, dict) and one.keys() == {"override /search"} for one in listed):
        content.pop("defaults", None)
    sweeper = hydra.get("sweeper") if isinstance(hydra, dict) and len(hydra) == 1 else None
    return not content and isinstance(sweeper, dict) and sweeper.keys() <= {"params", "zip", "exclude"}


def _sorted(options: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(options, key=_natural))


def _natural(option: str) -> list[str | int]:
    """r8 before r16, qwen3_8b before qwen3_14b: text and numbers alternate, so that like is compared with like."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", option)]


def _read(path: Path, file: Path) -> tuple[str, Mapping[str, Any]]:
    """A config file's package, and its content without the defaults list. `path` is below its conf folder."""
    text = file.read_text(encoding="utf-8")
    content = load_yaml(text, file)
    content.pop("defaults", None)
    return package_of(path, text), content


def package_of(path: Path, text: str) -> str:
    """Where a config file's keys belong, by its header; empty for the root. `path` is below its conf folder."""
    header = _HEADER.match(text)
    if header is None:
        return ".".join(path.parent.parts)
    return "" if header[1] == "_global_" else header[1]


_SAFE_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_SAFE_LOADER):  # type: ignore[misc]
    """Reads values as Hydra reads them: 2e-4 is a number, which is text in YAML 1.1, and a date is text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?[0-9]+(?:_[0-9]+)*(?:\.[0-9_]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)
_Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in forms if tag != "tag:yaml.org,2002:timestamp"]
    for first, forms in _Loader.yaml_implicit_resolvers.items()
}


def load_yaml(text: str, file: Path) -> dict[str, Any]:
    """A YAML mapping; empty for anything else. Raises SweepError for what is not YAML."""
    try:
        content = yaml.load(text, Loader=_Loader)
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
