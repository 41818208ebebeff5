"""`axosweep init`: writes a small project with comments, to start from. Does not import Hydra."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from runner.config.project import CONF, own_conf
from runner.console.parser import Names, VerbParser
from runner.errors import SweepError

START = ("conf/experiment/mine.yaml", "sweeps/first.yaml", "README.md")
"""What is written, below runner/config/new_project and below the new project."""


def parser() -> VerbParser:
    about = "Write a small project to start from: an experiment and a sweep, with comments. Overwrites nothing."
    verb = VerbParser("init", description=about)
    verb.add("folder", nargs="?", names=[Names.FOLDER], help="where; this folder by default")
    return verb


def main(words: Sequence[str]) -> int:
    print("\n".join(init(parser().read(words).folder)))
    return 0


def init(folder: str | None) -> list[str]:
    """Write the files that do not exist yet; returns the lines to print.

    Raises SweepError when the folder cannot be written, or its conf/ is another Hydra application's.
    """
    root = Path(folder or ".").expanduser()
    if (root / CONF).exists():
        own_conf(str(root / CONF))
    lines = []
    for name in START:
        file = root / name
        if file.exists():
            lines.append(f"skipped  {file}: exists already")
        else:
            _write(file, _shipped(name).read_text(encoding="utf-8"))
            lines.append(f"written  {file}")
    there = "" if root.resolve() == Path.cwd() else f"cd {root} && "
    return [*lines, f"Next: {there}axosweep plan -m +sweeps=first"]


def _shipped(name: str) -> Traversable:
    return resources.files("runner.config").joinpath("new_project", *name.split("/"))


def _write(file: Path, text: str) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SweepError(f"{file} cannot be written: {error.strerror}.") from error
