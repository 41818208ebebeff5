"""base=FILE -> an experiment that Hydra can choose: the file's config, without the groups that write a config.

The config is merged before those groups (`base` is first in the defaults list), so that a group that is named still
applies: base=my.yml lora=r8 has the file's recipe and this adapter.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser

from runner.composing.axolotl_file import Base, for_omegaconf, read_base
from runner.config.overrides import parts
from runner.config.project import add_base, current_project
from runner.config.vocabulary import AXOLOTL, BASE_OPTION, EXPERIMENT, Vocabulary
from runner.console import terminal
from runner.errors import SweepError

SUFFIX = ".yml"
"""Of an option that stands for a file: Hydra's own files end in .yaml, so none has the same name."""


ON_A_CPU = (
    "without gpu=..., a run trains on the CPU with the config as it is. gpu=cpu takes out what a CPU cannot do, "
    "gpu=h100 chooses a GPU."
)


def with_bases(overrides: Sequence[str], vocabulary: Vocabulary) -> list[str]:
    """Canonical overrides with each `base=FILE,...` as `experiment=OPTION,...`, its options known to Hydra.

    What is left out of a file is printed on standard error, once. Raises SweepError for a file that cannot be a base,
    and for an experiment next to a base.
    """
    requested = [one for one in overrides if parts(one).key == BASE_OPTION]
    named = [one for one in overrides if parts(one).key == EXPERIMENT]
    chosen = next((one for one in named if parts(one).value not in current_project().bases), None)
    if requested and chosen is not None:
        raise SweepError(f"{requested[0]} and {chosen} both say what a run starts from. Choose one of the two.")
    if requested and not any(parts(one).key == "gpu" for one in overrides):
        terminal.message(f"{requested[0]}: {ON_A_CPU}")
    return [_chosen(one, vocabulary) if one in requested else one for one in overrides]


def _chosen(override: str, vocabulary: Vocabulary) -> str:
    parsed = OverridesParser.create().parse_override(override)
    swept = parsed.is_sweep_override()
    files = list(parsed.sweep_string_iterator()) if swept else [parsed.get_value_element_as_str()]
    return f"{EXPERIMENT}=" + ",".join(_option(_unquoted(file), vocabulary) for file in dict.fromkeys(files))


def _unquoted(text: str) -> str:
    """A path with a space is written in quotes for Hydra's grammar."""
    value = OverridesParser.create().parse_override(f"{BASE_OPTION}={text}").value()
    if not isinstance(value, str):
        raise SweepError(
            f"{BASE_OPTION}={text}: the path of an Axolotl config is expected, as in {BASE_OPTION}=my-axolotl.yml."
        )
    return value


def _option(file: str, vocabulary: Vocabulary) -> str:
    """The option for a file, which is made known to Hydra the first time."""
    taken = current_project().bases
    for option, known in taken.items():
        if known == file:
            return option
    base = _read(file, vocabulary)
    stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", Path(file).stem).strip("-.") or BASE_OPTION
    option = next(name for number in range(len(taken) + 1) if (name := _numbered(stem, number)) not in taken)
    _store(option, base, vocabulary)
    add_base(option, file)
    for note in base.notes:
        terminal.message(f"{file}: {note}")
    return option


def _read(file: str, vocabulary: Vocabulary) -> Base:
    if not Path(file).expanduser().exists() and file in vocabulary.groups[EXPERIMENT]:
        raise SweepError(f"{BASE_OPTION}={file}: there is no such file. To choose the experiment: {EXPERIMENT}={file}")
    return read_base(file)


def _numbered(stem: str, number: int) -> str:
    return f"{stem}{f'-{number + 1}' if number else ''}{SUFFIX}"


def forget_bases() -> None:
    """Remove them from Hydra's store, which lives as long as the process."""
    repo = ConfigStore.instance().repo
    for option in current_project().bases:
        for group in (BASE_OPTION, EXPERIMENT):
            repo.get(group, {}).pop(f"{option}.yaml", None)


def _store(option: str, base: Base, vocabulary: Vocabulary) -> None:
    store = ConfigStore.instance()
    store.store(
        group=BASE_OPTION, name=option, node=for_omegaconf(dict(base.axolotl)), package=AXOLOTL, provider="axosweep"
    )
    store.store(
        group=EXPERIMENT,
        name=option,
        node=experiment(option, base, vocabulary),
        package="_global_",
        provider="axosweep",
    )


def experiment(option: str, base: Base, vocabulary: Vocabulary) -> dict[str, Any]:
    """The experiment that chooses an option of the group `base`, and no other group that writes a config."""
    node: dict[str, Any] = {"defaults": ["_self_", {f"override /{BASE_OPTION}": option}]}
    node["defaults"] += [{f"override /{group}": None} for group in vocabulary.recipes]
    seed = base.axolotl.get("seed")
    node |= {"data": {"seed": seed}} if isinstance(seed, int) else {}
    return node | ({"tracking": dict(base.tracking)} if base.tracking else {})
