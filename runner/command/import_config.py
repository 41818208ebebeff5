"""`axosweep import FILE`: turns an Axolotl config into an experiment. Does not import Hydra.

It writes two files, since the config has to be merged before groups that may change it: conf/base/NAME.yaml is the
config; conf/experiment/NAME.yaml chooses it, and leaves out every group that would add to it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from modal_app.store.step import write_atomically
from runner.composing.axolotl_file import Base, for_omegaconf, read_base
from runner.config.project import own_conf
from runner.config.vocabulary import AXOLOTL, BASE_OPTION, EXPERIMENT, Vocabulary, read_vocabulary
from runner.console.parser import Names, VerbParser
from runner.errors import SweepError

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*")
_WORDS = ("null", "none", "true", "false")
"""What Hydra's grammar does not read as text, or a person does not read as a choice."""


def parser() -> VerbParser:
    about = "Turn an Axolotl config into an experiment: conf/experiment/NAME.yaml."
    verb = VerbParser("import", description=about)
    verb.add("file", names=[Names.FILE], help="the config, a YAML file")
    verb.add("--name", help="the experiment's name; the file's by default")
    verb.add("--force", action="store_true", help="overwrite an experiment of this name")
    verb.add("-cd", "--config-dir", names=[Names.FOLDER], help="where to write it; ./conf by default")
    return verb


def main(words: Sequence[str]) -> int:
    args = parser().read(words)
    print("\n".join(import_config(args.file, name=args.name, config_dir=args.config_dir, force=args.force)))
    return 0


def import_config(file: str, *, name: str | None, config_dir: str | None, force: bool) -> list[str]:
    """Write the experiment; returns the lines to print.

    Raises SweepError for a config that cannot be used. Unless `force`, also if it would overwrite a file, or hide a
    shipped experiment.
    """
    name = _checked(name or _name_from(file), given=name is not None)
    conf, vocabulary = own_conf(config_dir), read_vocabulary()
    base_file, experiment_file = (conf / group / f"{name}.yaml" for group in (BASE_OPTION, EXPERIMENT))
    if not force:
        _refuse_to_overwrite(name, [base_file, experiment_file], vocabulary)
    base = read_base(file)
    for path, text in ((base_file, _base(base)), (experiment_file, _experiment(name, base, vocabulary))):
        _write(path, text)
    return [
        f"{_shown(base_file)}: the config",
        f"{_shown(experiment_file)}: the experiment that chooses it",
        *base.notes,
        f"Next: axosweep plan experiment={name} gpu=h100   (`axosweep --help` lists the GPUs; without one, this CPU)",
    ]


def _name_from(file: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "_", Path(file).stem).strip("_-")


def _checked(name: str, *, given: bool) -> str:
    if _NAME.fullmatch(name) and name.lower() not in _WORDS and not name.endswith((".yaml", ".yml")):
        return name
    why = "is not a name for an experiment" if given else "would be its name, but Hydra would not read it as a name"
    raise SweepError(f"{name!r} {why}. Give one of letters, digits, - and _ that begins with a letter: --name NAME.")


def _refuse_to_overwrite(name: str, files: list[Path], vocabulary: Vocabulary) -> None:
    there = [_shown(file) for file in files if file.exists()]
    if there:
        raise SweepError(f"{' and '.join(there)}: there already. Choose another --name, or --force to overwrite.")
    if name in vocabulary.groups[EXPERIMENT]:
        raise SweepError(
            f"There is already an experiment {name}, which this one would hide. Choose another --name, or add --force."
        )


def _write(file: Path, text: str) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, text)
    except OSError as error:
        raise SweepError(f"{file} cannot be written: {error.strerror}.") from error


def _shown(file: Path) -> str:
    here = Path.cwd()
    return str(file.relative_to(here) if file.is_relative_to(here) else file)


def _base(base: Base) -> str:
    return (
        f"# @package {AXOLOTL}\n"
        f"# {_printable(base.file)} as Axolotl reads it, without the keys that axosweep sets itself.\n"
        f"{_dumped(for_omegaconf(dict(base.axolotl)))}"
    )


def _experiment(name: str, base: Base, vocabulary: Vocabulary) -> str:
    nothing = "".join(f"  - override /{group}: null\n" for group in vocabulary.recipes)
    tracking = f"\n{_dumped({'tracking': for_omegaconf(dict(base.tracking))})}" if base.tracking else ""
    seed = base.axolotl.get("seed")
    data = f"\n{_dumped({'data': {'seed': seed}})}" if isinstance(seed, int) else ""
    return (
        "# @package _global_\n"
        f"# {_printable(base.file)} as it is (conf/{BASE_OPTION}/{name}.yaml), without groups that would add to it.\n"
        "# Groups that you name still apply: lora=r8 is this config with another adapter, gpu=cpu takes out\n"
        "# what a CPU cannot do.\n"
        f"#   axosweep plan experiment={name} gpu=h100\n"
        f"#   axosweep -m experiment={name} gpu=h100 learning_rate=1e-4,2e-4\n"
        f"defaults:\n  - _self_\n  - override /{BASE_OPTION}: {name}\n{nothing}{data}{tracking}"
    )


def _printable(file: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in Path(file).name)


class _Dumper(yaml.SafeDumper):
    """Writes YAML that omegaconf reads as PyYAML does: text that looks like a number to omegaconf is quoted."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=_style(text))


def _style(text: str) -> str | None:
    if not all(character.isprintable() or character == "\n" for character in text):
        return '"'  # PyYAML would write some of them (a next-line mark) as they are, and not read them back
    return "|" if "\n" in text.strip("\n") else "'" if _is_number(text) else None


def _is_number(text: str) -> bool:
    try:
        float(text.replace("_", ""))
    except ValueError:
        return False
    return True


_Dumper.add_representer(str, _text)


def _dumped(value: Any) -> str:
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    return text
