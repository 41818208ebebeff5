"""Where configs are looked for: a user's own conf/ and sweeps/, then the shipped ones. Does not import Hydra.

Hydra creates its plugins without arguments, so the folders of a command line are stored here while it runs.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from runner.config.shipped import shipped_root
from runner.errors import SweepError

CONF = "conf"
SWEEPS = "sweeps"
SWEEPS_PROVIDER = "axosweep"
"""Hydra's name for the entries of the search path with a folder sweeps/."""
ROOT_CONFIG = "config.yaml"
OUR_SWEEPER = {"override hydra/sweeper": "axosweep"}
"""The entry of a defaults list that makes a root config one of axosweep's."""


@dataclass(frozen=True, slots=True)
class BaseSource:
    """What a command line starts from instead of the groups: base=FILE, or from=RUN."""

    key: str
    """`base` or `from`."""
    value: str
    """As it was written."""
    axolotl_keys: frozenset[str] = frozenset()
    """The keys of its config."""


@dataclass(frozen=True, slots=True)
class Origin:
    """The config of an earlier run, which a run that continues from it starts from."""

    axolotl: Mapping[str, Any]
    gpu: Mapping[str, Any]
    """Type, count and fallback, as in the `gpu` node."""
    data: Mapping[str, Any]
    """Limit and seed."""
    executor: str


FindOrigin = Callable[[str, str | None], Origin]
"""RUN[@STEP] and the value of store=, if there is one -> the run's config. Raises SweepError."""


@dataclass(frozen=True, slots=True)
class Project:
    """The folders of one command line; of two files with the same name, the one in the earlier folder counts."""

    conf: tuple[Path, ...]
    """Folders of config groups. The last is the shipped one."""
    homes: tuple[Path, ...]
    """Folders that contain a folder sweeps/. The last is the shipped one."""
    foreign: Path | None = None
    """A conf/ in the working directory that belongs to another Hydra application, and is therefore not read."""
    bases: Mapping[str, BaseSource] = field(default_factory=dict)
    """Options of the group `experiment` that stand for base=FILE or from=RUN."""
    find_origin: FindOrigin | None = None
    """None where no command runs: then from=RUN starts from the groups."""

    def config_files(self) -> dict[Path, Path]:
        """Every config file that counts, by its path below its conf folder."""
        found: dict[Path, Path] = {}
        for folder in self.conf:
            for name in _yaml_files(folder):
                found.setdefault(*_located(str(folder), name))
        return found

    def sweep_files(self) -> dict[str, Path]:
        """Every sweep file that counts, by its name: from a sweeps/ next to a conf folder, or in it."""
        found: dict[str, Path] = {}
        for folder in (*(conf / SWEEPS for conf in self.conf), *(home / SWEEPS for home in self.homes)):
            for file in sorted(folder.glob("*.yaml")):
                found.setdefault(file.stem, file)
        return found


def find_project(config_dir: str | None = None) -> Project:
    """The folder of --config-dir, then conf/ and sweeps/ of the working directory, then the shipped ones.

    Raises SweepError when `config_dir` is not a folder, or has the root config of another Hydra application.
    """
    here, shipped = Path.cwd(), shipped_root()
    conf, homes, foreign = [], [here, shipped], None
    if config_dir is not None:
        own = Path(config_dir).expanduser().absolute()
        _check(own, config_dir)
        conf.append(own)
        homes.insert(0, own.parent)
    if here != shipped and (here / CONF).is_dir():
        foreign = here / CONF if _is_foreign(here / CONF) else None
        conf += [] if foreign else [here / CONF]
    return Project(
        conf=_distinct([*conf, shipped / CONF]),
        homes=_distinct([home for home in homes if (home / SWEEPS).is_dir()]),
        foreign=foreign,
    )


def current_project() -> Project:
    """The folders of the running command line; looked up again if there is none."""
    return _current.get() or find_project()


@contextmanager
def using(project: Project) -> Iterator[None]:
    token = _current.set(project)
    try:
        yield
    finally:
        _current.reset(token)


def add_base(option: str, source: BaseSource) -> None:
    """From here on, `experiment=OPTION` stands for that source."""
    project = current_project()
    _current.set(replace(project, bases={**project.bases, option: source}))


_current: ContextVar[Project | None] = ContextVar("project", default=None)


def own_conf(config_dir: str | None = None) -> Path:
    """The conf folder that a user's own files are written to; it may not exist yet.

    Raises SweepError when the one in the working directory is another application's.
    """
    if config_dir is not None:
        folder = Path(config_dir).expanduser().absolute()
        if folder.exists():
            _check(folder, config_dir)
        return folder
    folder = Path.cwd() / CONF
    if folder.is_dir() and _is_foreign(folder):
        raise SweepError(
            f"{folder} belongs to another Hydra application: its {ROOT_CONFIG} is not axosweep's. "
            "Name a folder of your own: --config-dir DIR."
        )
    return folder


def foreign_note(folder: Path) -> str:
    return (
        f"{folder} is not read: its {ROOT_CONFIG} is another Hydra application's. For a folder with "
        "groups for axosweep, add --config-dir DIR."
    )


def _check(folder: Path, given: str) -> None:
    if not folder.is_dir():
        raise SweepError(f"--config-dir {given}: there is no such folder.")
    if _is_foreign(folder):
        raise SweepError(
            f"--config-dir {given}: its {ROOT_CONFIG} is another application's, and would replace axosweep's own. "
            "Name a folder that contains only config groups."
        )


def _is_foreign(folder: Path) -> bool:
    """A root config that does not choose our sweeper belongs to another application."""
    try:
        content: Any = yaml.safe_load((folder / ROOT_CONFIG).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return True
    defaults = content.get("defaults") if isinstance(content, dict) else None
    return not (isinstance(defaults, list) and OUR_SWEEPER in defaults)


@functools.lru_cache(maxsize=1024)
def _located(folder: str, name: str) -> tuple[Path, Path]:
    """A file's path below the folder, and where it is. A path knows its hash and its text only once it was asked."""
    return Path(name), Path(folder, name)


def _yaml_files(folder: Path) -> list[str]:
    """Their paths below the folder, in order. A command needs this list four times: pathlib's takes three times as
    long."""
    found, top = [], str(folder)
    for place, _, files in os.walk(top):
        below = place[len(top) :]
        found += [f"{below}/{file}".lstrip("/") for file in files if file.endswith(".yaml")]
    return sorted(found, key=lambda name: name.split("/"))


def _distinct(folders: list[Path]) -> tuple[Path, ...]:
    """Each once, however it is reached: in a checkout, conf/ of the working directory is the shipped one."""
    return tuple({folder.resolve(): folder for folder in reversed(folders)}.values())[::-1]
