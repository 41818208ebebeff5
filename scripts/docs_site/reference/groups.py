"""A page for each config group: its options, the keys that each sets, and the file of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from runner.command.help import GROUPS
from runner.config.project import CONF, SWEEPS, Project
from runner.config.shipped import shipped_root
from runner.config.vocabulary import (
    AXOLOTL,
    BASE_OPTION,
    DATASET_FACTS,
    MODEL_FACTS,
    Vocabulary,
    load_yaml,
    package_of,
    read_vocabulary,
)
from scripts.docs_site.markdown import code, code_block, plain, table

NO_KEYS = (MODEL_FACTS, DATASET_FACTS, "hydra")
"""Facts for estimates, and Hydra's own settings."""


def shipped_project() -> Project:
    """The shipped files alone, without those of the folder in which the site is built."""
    return Project(conf=(shipped_root() / CONF,), homes=(shipped_root(),))


def overview() -> str:
    words = read_vocabulary(shipped_project())
    rows = [
        (
            f"[`{group}`]({group}.md)",
            plain(GROUPS[group]),
            str(len(words.groups[group])),
            code(words.chosen.get(group, "")),
        )
        for group in _names(words)
    ]
    return f"# Groups\n\n{table(('group', 'what', 'options', 'default'), rows)}"


def pages() -> Mapping[str, str]:
    project = shipped_project()
    words, files = read_vocabulary(project), project.config_files()
    sweeps = {Path(SWEEPS) / f"{name}.yaml": file for name, file in project.sweep_files().items()}
    return {f"reference/{group}.md": _page(group, words, {**files, **sweeps}) for group in _names(words)}


def _names(words: Vocabulary) -> list[str]:
    return [group for group in words.groups if group != BASE_OPTION]


def _page(group: str, words: Vocabulary, files: Mapping[Path, Path]) -> str:
    options = {option: files[Path(group) / f"{option}.yaml"] for option in words.groups[group]}
    chosen, written = words.chosen.get(group), f"+{group}" if group == SWEEPS else group
    rows = [
        (f"[`{written}={option}`](#{option})", "yes" if option == chosen else "", ", ".join(_keys(group, option, file)))
        for option, file in options.items()
    ]
    parts = [f"# {group}", table(("option", "default", "sets"), rows)]
    for option, file in options.items():
        parts += [f"## {option}", code_block(file.read_text(encoding="utf-8") or "# nothing", "yaml")]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _keys(group: str, option: str, file: Path) -> Iterator[str]:
    """The keys that an option sets: those of Axolotl by their own names, others with their place in the config."""
    text = file.read_text(encoding="utf-8")
    content, package = load_yaml(text, file), package_of(Path(group) / f"{option}.yaml", text)
    for entry in content.pop("defaults", []):
        for chosen, value in entry.items() if isinstance(entry, dict) else ():
            yield code(f"{chosen.removeprefix('override ').strip().removeprefix('/')}={value}")
    for name in _leaves(content, package.split(".") if package else []):
        yield code(name)


def _leaves(content: Mapping[str, Any], above: list[str]) -> Iterator[str]:
    """Names of the keys of a config. What is below a key of Axolotl is its value."""
    for name, value in content.items():
        place = [*above, str(name)]
        if place[0] == AXOLOTL and len(place) == 2:
            yield place[1]
        elif place[0] in NO_KEYS:
            continue
        elif isinstance(value, dict):
            yield from _leaves(value, place)
        else:
            yield ".".join(place)
