"""The body of a sweep file, which is everything but its axes, as overrides. Does not import Hydra.

Hydra puts a file's keys where its package says. A sweep file belongs at the root, where nothing reads an Axolotl key.
So these keys are read here, and treated as if they were on the command line.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from runner.config.overrides import canonical, written
from runner.config.project import SWEEPS
from runner.config.vocabulary import AXOLOTL, BASE_OPTION, Vocabulary, load_yaml, package_of
from runner.errors import SweepError

HEADER = "# @package _global_"
OWN = ("hydra", "defaults", AXOLOTL)
"""Keys that mean the same to Hydra as to us."""


def body_overrides(file: Path, vocabulary: Vocabulary) -> list[str]:
    """The body of a sweep file as canonical overrides. Those of the command line come later and win.

    Raises SweepError for a file without the header, for an unknown key, and for a group's choice, which belongs in the
    file's axes or its defaults list.
    """
    text = file.read_text(encoding="utf-8")
    if package_of(Path(SWEEPS, file.name), text):
        raise SweepError(
            f"{file} does not begin with the line `{HEADER}`: without it, Hydra puts the keys where nothing reads them."
        )
    return list(_overrides(file, text, vocabulary))


def body_keys(file: Path) -> set[str]:
    """The keys at the top of a sweep file. Hydra leaves them next to `axolotl`, where nothing reads them."""
    return {str(key) for key in load_yaml(file.read_text(encoding="utf-8"), file)}


def _overrides(file: Path, text: str, vocabulary: Vocabulary) -> Iterator[str]:
    for key, value in load_yaml(text, file).items():
        key = str(key)
        if key in OWN:
            continue
        is_group = key in vocabulary.groups and key != BASE_OPTION  # `base: FILE` names a file, not an option
        if is_group and not isinstance(value, dict):
            raise SweepError(
                f"{file}: {key} is a config group. Choose one option for all runs in the file's defaults list "
                f"(`- override /{key}: {value}`), or several under hydra.sweeper.params."
            )
        if is_group and key not in vocabulary.read:
            raise SweepError(
                f"{file}: {key} is a config group, so nothing reads keys below it. Write Axolotl's keys by their own "
                f"names, or below `{AXOLOTL}:`."
            )
        if key == BASE_OPTION or key not in vocabulary.nodes:
            try:
                yield canonical(f"{key}={written(value)}", vocabulary)
            except SweepError as error:
                raise SweepError(f"{file}: {error}") from error
