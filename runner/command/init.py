"""`axosweep init`: a small commented start for a project of one's own. No Hydra."""

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
    about = "Write a small commented start: an experiment, a sweep. Overwrites nothing."
    verb = VerbParser("init", description=about)
    verb.add("folder", nargs="?", names=[Names.FOLDER], help="where; this folder by default")
    return verb


def main(words: Sequence[str]) -> int:
    print("\n".join(init(parser().read(words).folder)))
    return 0


def init(folder: str | None) -> list[str]:
    """Write what is not there yet; returns what is to be told, a line each. Nothing is overwritten.

    Raises SweepError when the folder cannot be written, or its conf/ is another Hydra application's.
    """
    root = Path(folder or ".").expanduser()
    if (root / CONF).exists():
        own_conf(str(root / CONF))
    said = []
    for name in START:
        file = root / name
        if file.exists():
            said.append(f"kept     {file}: there already")
        else:
            _write(file, _shipped(name).read_text(encoding="utf-8"))
            said.append(f"written  {file}")
    there = "" if root.resolve() == Path.cwd() else f"cd {root} && "
    return [*said, f"Next: {there}axosweep plan -m +sweeps=first"]


def _shipped(name: str) -> Traversable:
    return resources.files("runner.config").joinpath("new_project", *name.split("/"))


def _write(file: Path, text: str) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SweepError(f"{file} cannot be written: {error.strerror}.") from error
