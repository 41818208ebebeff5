"""Where configs are looked for: a user's own conf/ and sweeps/, ahead of the shipped ones. No Hydra.

Hydra makes its plugins itself and hands them nothing, so the folders of one command line are kept here while it runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
ROOT_CONFIG = "config.yaml"
OUR_SWEEPER = {"override hydra/sweeper": "axosweep"}
"""The entry of a defaults list that makes a root config one of axosweep's."""


@dataclass(frozen=True, slots=True)
class Project:
    """The folders of one command line; of two files with the same name, the one in the earlier folder counts."""

    conf: tuple[Path, ...]
    """Folders of config groups. The last is the shipped one."""
    homes: tuple[Path, ...]
    """Folders that hold a folder sweeps/. The last is the shipped one."""
    foreign: Path | None = None
    """A conf/ in the working directory that belongs to another Hydra application, and is therefore not read."""
    bases: Mapping[str, str] = field(default_factory=dict)
    """Options of the group `experiment` that stand for base=FILE, with the file as it was written."""

    def config_files(self) -> dict[Path, Path]:
        """Every config file that counts, by its path below its conf folder."""
        found: dict[Path, Path] = {}
        for folder in self.conf:
            for file in sorted(folder.rglob("*.yaml")):
                found.setdefault(file.relative_to(folder), file)
        return found

    def sweep_files(self) -> dict[str, Path]:
        """Every sweep file that counts, by its name: those of a sweeps/ beside conf folders, and of one in them."""
        found: dict[str, Path] = {}
        for folder in (*(conf / SWEEPS for conf in self.conf), *(home / SWEEPS for home in self.homes)):
            for file in sorted(folder.glob("*.yaml")):
                found.setdefault(file.stem, file)
        return found


def find_project(config_dir: str | None = None) -> Project:
    """The folder asked for with --config-dir, then conf/ and sweeps/ of the working directory, then the shipped ones.

    Raises SweepError when `config_dir` is no folder, or holds the root config of another Hydra application.
    """
    here, shipped = Path.cwd(), shipped_root()
    conf, homes, foreign = [], [here, shipped], None
    if config_dir is not None:
        asked = Path(config_dir).expanduser().absolute()
        _check(asked, config_dir)
        conf.append(asked)
        homes.insert(0, asked.parent)
    if (here / CONF).is_dir():
        foreign = here / CONF if _is_foreign(here / CONF) else None
        conf += [] if foreign else [here / CONF]
    return Project(
        conf=_distinct([*conf, shipped / CONF]),
        homes=_distinct([home for home in homes if (home / SWEEPS).is_dir()]),
        foreign=foreign,
    )


def current_project() -> Project:
    """The folders of the command line that is being run; found anew where none is."""
    return _current.get() or find_project()


@contextmanager
def using(project: Project) -> Iterator[None]:
    token = _current.set(project)
    try:
        yield
    finally:
        _current.reset(token)


def add_base(option: str, file: str) -> None:
    """From here on, `experiment=OPTION` stands for base=FILE."""
    project = current_project()
    _current.set(replace(project, bases={**project.bases, option: file}))


_current: ContextVar[Project | None] = ContextVar("project", default=None)


def own_conf(config_dir: str | None = None) -> Path:
    """The conf folder that a user's own files are written to; it need not be there yet.

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
        f"{folder} is not read: its {ROOT_CONFIG} is another Hydra application's. A folder with groups for axosweep is "
        "named with --config-dir DIR."
    )


def _check(folder: Path, asked: str) -> None:
    if not folder.is_dir():
        raise SweepError(f"--config-dir {asked}: there is no such folder.")
    if _is_foreign(folder):
        raise SweepError(
            f"--config-dir {asked}: its {ROOT_CONFIG} would take the place of axosweep's own, and is another "
            "application's. Name a folder that holds config groups only."
        )


def _is_foreign(folder: Path) -> bool:
    """A root config that does not choose our sweeper was written for something else."""
    try:
        content: Any = yaml.safe_load((folder / ROOT_CONFIG).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return True
    defaults = content.get("defaults") if isinstance(content, dict) else None
    return not (isinstance(defaults, list) and OUR_SWEEPER in defaults)


def _distinct(folders: list[Path]) -> tuple[Path, ...]:
    """Each once, however it is reached: in a checkout, conf/ of the working directory is the shipped one."""
    return tuple({folder.resolve(): folder for folder in reversed(folders)}.values())[::-1]
