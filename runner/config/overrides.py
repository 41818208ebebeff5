"""Users' overrides -> Hydra's own overrides. Pure; uses Hydra's notation without importing Hydra.

`learning_rate=1e-3` becomes `++axolotl.learning_rate=1e-3`; a group, a config node and anything of
Hydra's own stay as they are; every other name is refused.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from runner.config.fields import unknown_key
from runner.config.project import CONF, SWEEPS
from runner.config.vocabulary import AXOLOTL, BASE_OPTION, EXPERIMENT, FROM, Vocabulary
from runner.errors import SweepError, did_you_mean

_OVERRIDE = re.compile(r"(?P<sign>~|\+\+|\+|)(?P<key>[^=@+~\s]+)(?P<package>@[^=\s]+)?(?:=(?P<value>.*))?", re.S)


_COUNTED = re.compile(r"(?P<many>\d+)x(?P<named>\w+)|(?P<kind>\w+):(?P<number>\d+)")
"""Several GPUs, as people and Modal write them."""
_NO_TEXT = re.compile(r"null|true|false|[+-]?(inf|nan|(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(e[+-]?\d+)?)", re.I)
"""What Hydra's grammar does not read as text; a group's option has to be text."""


ELSEWHERE = {
    "lr": "learning_rate", "epochs": "num_epochs", "num_train_epochs": "num_epochs", "steps": "max_steps",
    "bs": "micro_batch_size", "per_device_train_batch_size": "micro_batch_size",
    "grad_accum": "gradient_accumulation_steps", "rank": "lora_r", "lora_rank": "lora_r",
    "optim": "optimizer", "lr_scheduler_type": "lr_scheduler", "max_length": "sequence_len", "seq_len": "sequence_len",
    "max_seq_length": "sequence_len", **dict.fromkeys(("gpus", "num_gpus", "n_gpus", "num_processes"), "gpu.count"),
}  # fmt: skip
"""Names that other programs and people use for keys of Axolotl."""
AT_A_TIME = "executor.parallel (runs at a time) or executor.max_gpus"
ELSEWHERE_IN_NODES = {
    "executor.modal.containers": AT_A_TIME, "executor.modal.max_containers": AT_A_TIME,
    "executor.containers": AT_A_TIME, "executor.max_containers": AT_A_TIME,
    "executor.modal.parallel": "executor.parallel", "executor.modal.max_gpus": "executor.max_gpus",
    "executor.modal.gpu": "gpu", "executor.modal.budget": "budget", "executor.reuse": "executor.modal.reuse",
}  # fmt: skip
"""The same for keys of axosweep."""
BY_NAME = {
    "model": "'~model' base_model={}",
    "dataset": "'datasets=[{{path: {}, type: chat_template}}]'",
}
"""How a model or dataset that no option describes is chosen by its name on the hub, or its folder."""
BY_FILE = {"dataset": "dataset=local data.path={}"}
"""How a file of rows is chosen; preflight says which option fits its rows, if this one does not."""
ROWS_FILES = (".json", ".jsonl", ".csv", ".parquet", ".arrow", ".txt")
BY_NUMBER = {"alpha": "lora_alpha={}"}
"""The key for which a group is taken when its option is a number."""
_LIKE_A_NUMBER = re.compile(r"(?<![\w@.'\"])\d+(?:e\d+)?(?![\w@.'\"])")
"""A run's key that is only digits, or digits with an e: Hydra would read it as a number and change it."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of an override. The grammar of the value is left to Hydra."""

    sign: str
    key: str
    package: str
    value: str | None

    def __str__(self) -> str:
        return f"{self.sign}{self.key}{self.package}" + ("" if self.value is None else f"={self.value}")


def parts(override: str) -> Parts:
    match = _OVERRIDE.fullmatch(override)
    if match is not None and (index := re.search(r"\[(\d+)\]", match["key"])) is not None:
        dotted = match["key"].replace(index[0], f".{index[1]}")
        raise SweepError(f"{override!r}: write an entry of a list with a dot: {dotted}=...")
    if match is None or (match["value"] is None and match["sign"] != "~"):
        raise SweepError(
            f"{override!r} is not an override. Write key=value, or ~key to remove a key.{_for_file(override)}"
        )
    return Parts(match["sign"], match["key"], match["package"] or "", match["value"])


def _for_file(word: str) -> str:
    """The override that selects the file which a word names."""
    path = Path(word.lstrip("+"))
    if path.parent.name == SWEEPS:
        return f" For a sweep file: +{SWEEPS}={path.stem}"
    return f" For an Axolotl config: {BASE_OPTION}={word}" if path.suffix in (".yml", ".yaml") else ""


def canonical(override: str, vocabulary: Vocabulary) -> str:
    """The same override in the form that Hydra takes; SweepError for an unknown name.

    `+ ++` and no sign all mean "set it" for an Axolotl key, since a user need not know whether a group
    sets it already; `~` removes it.
    """
    parsed = parts(override)
    head, _, rest = parsed.key.partition(".")
    _refuse_to_shorten(parsed)
    if head == "hydra" or parsed.key.startswith("hydra/"):
        return override
    if parsed.key == BASE_OPTION:
        return _base(parsed)
    if parsed.key in vocabulary.groups:
        return _group(parsed, vocabulary)
    if parsed.package:
        raise SweepError(
            f"{parsed.key!r} in {override!r} is not a config group.{did_you_mean(parsed.key, vocabulary.groups)}"
        )
    if head == AXOLOTL:
        return _axolotl(parsed) if not rest else _field(parsed, rest, vocabulary)
    if head in vocabulary.nodes:
        return _node(parsed, vocabulary)
    if head in vocabulary.fields.everywhere:
        return _field(parsed, parsed.key, vocabulary)
    raise _unknown(parsed, vocabulary)


def canonical_all(overrides: Iterable[str], vocabulary: Vocabulary) -> list[str]:
    """`canonical` of each. SweepError with all problems, not only the first."""
    found: list[str] = []
    problems: list[str] = []
    for override in overrides:
        try:
            found.append(canonical(override, vocabulary))
        except SweepError as problem:
            problems.append(str(problem))
    if len(problems) > 1:
        raise SweepError("\n".join(["Nothing was started.", *(f"- {problem}" for problem in problems)]))
    if problems:
        raise SweepError(problems[0])
    return found


def _refuse_to_shorten(parsed: Parts) -> None:
    """Hydra 1.3 would raise a TypeError."""
    named, _, last = parsed.key.rpartition(".")
    if parsed.sign == "~" and last.isdecimal():
        raise SweepError(
            f"{parsed}: an entry cannot be removed from a list. Write the complete list without it: {named}=[...]"
        )


def _group(parsed: Parts, vocabulary: Vocabulary) -> str:
    """Adds or removes `+`, which Hydra requires exactly when a group is not in the defaults list."""
    if parsed.value is not None and parsed.value.startswith("["):
        swept = f"-m {parsed.key}={parsed.value.strip('[]')}"
        raise SweepError(f"{parsed} would merge the options, and the last one would win. To sweep: {swept}")
    for option in re.split(r"[,()]", parsed.value or ""):
        if _NO_TEXT.fullmatch(option.strip()):
            raise SweepError(no_such_option(parsed.key, option.strip(), vocabulary.groups[parsed.key]))
    if parsed.sign in ("", "+") and not parsed.package:
        return f"{'' if parsed.key in vocabulary.chosen else '+'}{parsed.key}={parsed.value}"
    return str(parsed)


def _base(parsed: Parts) -> str:
    if parsed.sign == "~" or not parsed.value:
        raise SweepError(f"{parsed}: the path of an Axolotl config is expected, as in {BASE_OPTION}=my-axolotl.yml.")
    return f"{BASE_OPTION}={parsed.value}"


def no_such_option(group: str, option: str, options: Sequence[str]) -> str:
    """The sentence for an option that a group does not have.

    >>> no_such_option("lora", "16", ["r8", "r16"])
    'lora=16: there is no such lora. Did you mean r16? There are: r8, r16.'
    >>> no_such_option("alpha", "64", ["fixed", "sqrt"])
    'alpha=64: there is no such alpha. To set it directly: lora_alpha=64. There are: fixed, sqrt.'
    >>> no_such_option("dataset", "my.jsonl", ["tiny"])
    'dataset=my.jsonl: there is no such dataset. To set it directly: dataset=local data.path=my.jsonl. There are: tiny.'
    >>> no_such_option("gpu", "4xH100", ["h100", "cpu"])
    'gpu=4xH100: write the kind and the number as gpu=h100 gpu.count=4.'
    >>> no_such_option("gpu", "h100:2", ["h100", "cpu"])
    'gpu=h100:2: write the kind and the number as gpu=h100 gpu.count=2.'
    """
    if group == "gpu" and (counted := _COUNTED.fullmatch(option.lower())):
        kind, number = counted["kind"] or counted["named"], counted["number"] or counted["many"]
        if kind in options:
            return f"gpu={option}: write the kind and the number as gpu={kind} gpu.count={number}."
    by_name = BY_FILE if option.endswith(ROWS_FILES) else BY_NAME if "/" in option else {}
    directly = (BY_NUMBER if option.isdecimal() else by_name).get(group)
    way_out = f" To set it directly: {directly.format(option)}." if directly else did_you_mean(option, options)
    noun, folder = ("sweep", SWEEPS) if group == SWEEPS else (group, CONF)
    if not way_out and not Path(folder).is_dir():
        way_out = f" Your own would be in {folder}/, which the current folder does not have ({Path.cwd()})."
    return f"{group}={option}: there is no such {noun}.{way_out} There are: {', '.join(options)}."


def _axolotl(parsed: Parts) -> str:
    if parsed.sign == "~":
        raise SweepError("~axolotl would remove the complete config of the run. Write ~KEY for one key.")
    if not parsed.value or not parsed.value.startswith("{"):
        raise SweepError(f"{parsed}: axolotl is a run's complete config. Write KEY=value for one key.")
    return str(Parts("++", AXOLOTL, "", parsed.value))


def _field(parsed: Parts, key: str, vocabulary: Vocabulary) -> str:
    if (problem := unknown_key(key.split("."), vocabulary.fields)) is not None:
        raise SweepError(f"{parsed}: {problem}")
    sign = "~" if parsed.sign == "~" else "++"
    return str(Parts(sign, f"{AXOLOTL}.{key}", "", parsed.value))


def _node(parsed: Parts, vocabulary: Vocabulary) -> str:
    nodes = vocabulary.nodes
    if parsed.key == FROM and parsed.value:
        parsed = replace(parsed, value=_LIKE_A_NUMBER.sub(lambda key: f"'{key[0]}'", parsed.value))
    for depth, name in enumerate(parsed.key.split(".")):
        before = ".".join(parsed.key.split(".")[:depth])
        if name not in nodes:
            if before and not nodes:
                return str(parsed)  # below a value: Hydra knows whether it is a list
            elsewhere = ELSEWHERE_IN_NODES.get(parsed.key)
            meant = f" Did you mean {elsewhere}?" if elsewhere else did_you_mean(name, nodes)
            raise SweepError(f"{parsed}: {before} has no {name}.{meant} It has: {', '.join(nodes)}.")
        nodes = nodes[name]
    return str(parsed)


def _unknown(parsed: Parts, vocabulary: Vocabulary) -> SweepError:
    known = [*vocabulary.groups, *vocabulary.nodes, *vocabulary.fields.everywhere]
    known += [f"{node}.{name}" for node, names in vocabulary.nodes.items() for name in names]
    elsewhere = ELSEWHERE.get(parsed.key)
    meant = f" Did you mean {elsewhere}?" if elsewhere else did_you_mean(parsed.key, known)
    return SweepError(f"{str(parsed)!r}: {parsed.key!r} is not a config group, a config key or an Axolotl key.{meant}")


def spoken(override: str, vocabulary: Vocabulary) -> str:
    """The inverse of `canonical`, as far as it can be undone: the shortest form with the same meaning."""
    for forced, sign in ((f"++{AXOLOTL}.", ""), (f"~{AXOLOTL}.", "~")):
        if override.startswith(forced):
            bare = override.removeprefix(forced)
            key = bare.partition("=")[0]
            ambiguous = key in vocabulary.groups or key.partition(".")[0] in vocabulary.nodes
            return f"{sign}{AXOLOTL}.{bare}" if ambiguous else f"{sign}{bare}"
    return base_spoken(override, vocabulary)


def base_spoken(override: str, vocabulary: Vocabulary) -> str:
    """base=FILE or from=RUN again, for an experiment that stands for it."""
    key, _, option = override.partition("=")
    if key != EXPERIMENT or option not in vocabulary.bases:
        return override
    source = vocabulary.bases[option]
    plain = source.key == FROM and not _LIKE_A_NUMBER.fullmatch(source.value)
    return f"{source.key}={source.value if plain else written(source.value)}"


# Values. Hydra's grammar is narrower than YAML's: what it would not read back as the same is quoted.

_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_/\-+.%@?|]*")
_RESERVED = re.compile(r"true|false|null|nan|inf", re.I)


def written(value: Any) -> str:
    """A value from a YAML file as Hydra's grammar writes it, so that it reads back equal.

    >>> written("r8"), written("train[:100]"), written([1, "a b"]), written({"pad_token": "<|end|>"})
    ('r8', "'train[:100]'", "[1,'a b']", "{pad_token:'<|end|>'}")
    """
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case int() | float():
            return repr(value)
        case str():
            return value if _PLAIN.fullmatch(value) and not _RESERVED.fullmatch(value) else _quoted(value)
        case list() | tuple():
            return "[" + ",".join(written(item) for item in value) + "]"
        case Mapping():
            return "{" + ",".join(f"{_key(key)}:{written(item)}" for key, item in value.items()) + "}"
    raise SweepError(f"{value!r} ({type(value).__name__}) cannot be written on Hydra's command line.")


def _key(key: Any) -> str:
    """Hydra does not accept quotes around a dict's keys; characters are escaped instead."""
    return re.sub(r"([\\()\[\]{}:=, \t])", r"\\\1", key) if isinstance(key, str) else written(key)


def _quoted(text: str) -> str:
    """Quotes, and backslashes before them, are escaped; nothing else is."""
    mark = '"' if "'" in text and '"' not in text else "'"
    escaped = re.sub(rf"(\\*){mark}", lambda found: found[1] * 2 + "\\" + mark, text)
    trailing = "\\" * (len(escaped) - len(escaped.rstrip("\\")))
    return f"{mark}{escaped}{trailing}{mark}"


def axis(key: str, value: Any) -> str:
    """One entry of `hydra.sweeper.params` as an override: a YAML list is an axis, a string is in Hydra's grammar.

    >>> axis("lora", ["r8", "r16"]), axis("learning_rate", "1e-4,2e-4"), axis("max_steps", 5)
    ('lora=r8,r16', 'learning_rate=1e-4,2e-4', 'max_steps=5')
    """
    if isinstance(value, str):
        return f"{key}={value}"
    if not isinstance(value, list):
        return f"{key}={written(value)}"
    if not value:
        raise SweepError(f"hydra.sweeper.params: {key} has an empty list, so there is nothing to run.")
    return f"{key}=" + ",".join(written(item) for item in value)


def in_a_shell(override: str) -> str:
    """The override with its value quoted for Hydra, and the result quoted for a shell.

    >>> print(in_a_shell("datasets.0.split=train[:100]"))
    'datasets.0.split="train[:100]"'
    """
    parsed = parts(override)
    value = "" if parsed.value is None else parsed.value
    inner = value.replace("\\", "\\\\").replace('"', '\\"') if '"' in value else value
    return shlex.quote(f'{parsed.sign}{parsed.key}{parsed.package}="{inner}"')
