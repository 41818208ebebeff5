"""base=FILE or from=RUN -> an experiment that Hydra can choose: that config, without the groups that write a config.

The config is merged before those groups (`base` is first in the defaults list), so that a group that is named still
applies: base=my.yml lora=r8 has the file's recipe and this adapter.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from runner.composing.axolotl_file import Base, for_omegaconf, read_base
from runner.config.overrides import parts
from runner.config.project import BaseSource, add_base, current_project
from runner.config.vocabulary import AXOLOTL, BASE_OPTION, EXPERIMENT, FROM, Vocabulary
from runner.console import terminal
from runner.errors import SweepError

SUFFIX = ".yml"
"""Of an option that stands for a file: Hydra's own files end in .yaml, so none has the same name."""


INHERITED = "that run's config is used, with the changes that the command line names."
ON_A_CPU = (
    "without gpu=..., a run trains on the CPU with the config as it is. gpu=cpu takes out what a CPU cannot do, "
    "gpu=h100 chooses a GPU."
)


def with_bases(overrides: Sequence[str], vocabulary: Vocabulary) -> list[str]:
    """Canonical overrides with each `base=FILE,...` and `from=RUN,...` as `experiment=OPTION,...`, its options known to
    Hydra. They may be those of an earlier call, after further ones of a sweep file.

    A run in `from=` gives its config only if nothing else next to it does. On the command line, it replaces the config
    that a sweep file names, and a note says so. What is left out of a file, and what a run's config is taken from, is
    printed on standard error, once. Raises SweepError for a file or a run that cannot be a base, and for an experiment
    next to a base.
    """
    requested = [one for one in overrides if parts(one).key == BASE_OPTION]
    named = [one for one in overrides if parts(one).key == EXPERIMENT]
    chosen = next((one for one in named if not _stands_for(one, BASE_OPTION, FROM)), None)
    if requested and chosen is not None:
        raise SweepError(f"{requested[0]} and {chosen} both say what a run starts from. Choose one of the two.")
    if named and _stands_for(named[-1], FROM):  # it has replaced the sweep file's
        overrides = [one for one in overrides if parts(one).key != FROM]
        _say_replaced([*requested, *([chosen] if chosen else [])], named[-1])
    if requested and named:
        overrides = [named[-1] if one in requested else one for one in overrides]
        requested = []
    if requested and not any(parts(one).key == "gpu" for one in overrides):
        terminal.message(f"{requested[0]}: {ON_A_CPU}")
    if not requested and not named and current_project().find_origin is not None:
        requested = [one for one in overrides if parts(one).key == FROM and parts(one).value != "null"]
    store = next((_store_named(one) for one in reversed(overrides) if parts(one).key == "store"), None)
    return [_chosen(one, vocabulary, store) if one in requested else one for one in overrides]


def _stands_for(override: str, *keys: str) -> bool:
    """Whether all options of this experiment stand for what one of these keys has named."""
    bases = current_project().bases
    return all(one in bases and bases[one].key in keys for one in (parts(override).value or "").split(","))


def _say_replaced(replaced: Sequence[str], by: str) -> None:
    """Print that a run of the command line gives the config, and not what a sweep file names."""
    bases = current_project().bases
    runs = ",".join(bases[one].value for one in (parts(by).value or "").split(","))
    for one in replaced:
        terminal.message(
            f"note: {FROM}={runs} replaces {one} of the sweep file. To continue from that checkpoint with the config "
            f"of the sweep file, write {one} on the command line, too.",
            style="yellow",
        )


def _chosen(override: str, vocabulary: Vocabulary, store: str | None) -> str:
    key = parts(override).key
    try:
        parsed = OverridesParser.create().parse_override(override)
        swept = parsed.is_sweep_override()
        values = list(parsed.sweep_string_iterator()) if swept else [parsed.get_value_element_as_str()]
    except HydraException as error:  # glob() is for the options of groups, and an interval has no list of values
        raise SweepError(f"{override}: write the values as a list, as in {key}=A,B.") from error
    options = [
        _run_option(value, vocabulary, store) if key == FROM else _file_option(_unquoted(value), vocabulary)
        for value in dict.fromkeys(values)
    ]
    return f"{EXPERIMENT}=" + ",".join(options)


def _store_named(override: str) -> str | None:
    """The folder in store=DIR; None for store=null."""
    value = OverridesParser.create().parse_override(override).value()
    return None if value is None else str(value)


def _unquoted(text: str) -> str:
    """A path with a space is written in quotes for Hydra's grammar."""
    value = OverridesParser.create().parse_override(f"{BASE_OPTION}={text}").value()
    if not isinstance(value, str):
        raise SweepError(
            f"{BASE_OPTION}={text}: the path of an Axolotl config is expected, as in {BASE_OPTION}=my-axolotl.yml."
        )
    return value


def _file_option(file: str, vocabulary: Vocabulary) -> str:
    """The option for a file, which is made known to Hydra the first time."""
    if (known := _known(BASE_OPTION, file)) is not None:
        return known
    base = _read(file, vocabulary)
    for note in base.notes:
        terminal.message(f"{file}: {note}")
    more: dict[str, Any] = {"tracking": dict(base.tracking)} if base.tracking else {}
    seed = base.axolotl.get("seed")
    more |= {"data": {"seed": seed}} if isinstance(seed, int) else {}
    source = BaseSource(BASE_OPTION, file, frozenset(base.axolotl))
    return _store(Path(file).stem, source, base.axolotl, more, vocabulary)


def _run_option(run: str, vocabulary: Vocabulary, store: str | None) -> str:
    """The option for the config of a run, which is made known to Hydra the first time."""
    run = run.strip("'\"")
    if (known := _known(FROM, run)) is not None:
        return known
    find = current_project().find_origin
    assert find is not None
    origin = find(run, store)
    terminal.message(f"{FROM}={run}: {INHERITED}")
    more = {FROM: run, "gpu": dict(origin.gpu), "data": dict(origin.data), "executor": origin.executor}
    return _store(run, BaseSource(FROM, run, frozenset(origin.axolotl)), origin.axolotl, more, vocabulary)


def _known(key: str, value: str) -> str | None:
    taken = current_project().bases.items()
    return next((option for option, source in taken if (source.key, source.value) == (key, value)), None)


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


def _store(
    stem: str, source: BaseSource, axolotl: Mapping[str, Any], more: Mapping[str, Any], vocabulary: Vocabulary
) -> str:
    """Make a config known to Hydra, as an option of `base` and of `experiment`. Returns the option."""
    taken = current_project().bases
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", stem).strip("-.") or BASE_OPTION
    option = next(one for number in range(len(taken) + 1) if (one := _numbered(name, number)) not in taken)
    store = ConfigStore.instance()
    store.store(group=BASE_OPTION, name=option, node=for_omegaconf(dict(axolotl)), package=AXOLOTL, provider="axosweep")
    node = experiment(option, more, vocabulary)
    store.store(group=EXPERIMENT, name=option, node=node, package="_global_", provider="axosweep")
    add_base(option, source)
    return option


def experiment(option: str, more: Mapping[str, Any], vocabulary: Vocabulary) -> dict[str, Any]:
    """The experiment that chooses an option of the group `base`, and no other group that writes a config. `more`: other
    nodes, and `executor`, an option of that group.
    """
    nodes = {key: value for key, value in more.items() if key != "executor"}
    defaults: list[Any] = ["_self_", {f"override /{BASE_OPTION}": option}]
    defaults += [{f"override /{group}": None} for group in vocabulary.recipes]
    defaults += [{"override /executor": more["executor"]}] if "executor" in more else []
    return {"defaults": defaults, **nodes}
