"""Names as people know them -> Hydra's own overrides. Pure; knows Hydra's notation but imports none of it.

`learning_rate=1e-3` becomes `++axolotl.learning_rate=1e-3`; a group, a config node and anything of
Hydra's own stay as they are; every other name is refused.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from runner.config.fields import unknown_key
from runner.config.vocabulary import AXOLOTL, BASE_OPTION, EXPERIMENT, Vocabulary
from runner.errors import SweepError, did_you_mean

_OVERRIDE = re.compile(r"(?P<sign>~|\+\+|\+|)(?P<key>[^=@+~\s]+)(?P<package>@[^=\s]+)?(?:=(?P<value>.*))?", re.S)


_NO_TEXT = re.compile(r"null|true|false|[+-]?\d+(\.\d*)?", re.I)
"""What Hydra's grammar reads as something else than text, and a group's option is text."""


ELSEWHERE = {
    "lr": "learning_rate", "epochs": "num_epochs", "num_train_epochs": "num_epochs", "steps": "max_steps",
    "bs": "micro_batch_size", "per_device_train_batch_size": "micro_batch_size",
    "grad_accum": "gradient_accumulation_steps", "rank": "lora_r", "lora_rank": "lora_r", "alpha": "lora_alpha",
    "optim": "optimizer", "lr_scheduler_type": "lr_scheduler", "max_length": "sequence_len", "seq_len": "sequence_len",
    "max_seq_length": "sequence_len",
}  # fmt: skip
"""What other programs, and people, call keys of Axolotl that are spelt otherwise."""
FROM = "from"
_LIKE_A_NUMBER = re.compile(r"(?<![\w@.'\"])\d+(?:e\d+)?(?![\w@.'\"])")
"""A run's key of digits alone, or with an e among them: Hydra would make a number of it, and another one."""


@dataclass(frozen=True, slots=True)
class Parts:
    """An override taken apart; Hydra's grammar for the value is Hydra's business."""

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
        raise SweepError(f"{override!r}: an entry of a list is said with a dot: {dotted}=...")
    if match is None or (match["value"] is None and match["sign"] != "~"):
        raise SweepError(f"{override!r} is not an override. Write key=value, or ~key to take a key out.")
    return Parts(match["sign"], match["key"], match["package"] or "", match["value"])


def canonical(override: str, vocabulary: Vocabulary) -> str:
    """The same override in the form that Hydra takes; SweepError for a name that means nothing.

    `+ ++` and no sign all mean "set it" for an Axolotl key, since a user need not know whether a group
    sets it already; `~` takes it out.
    """
    said = parts(override)
    head, _, rest = said.key.partition(".")
    _refuse_to_shorten(said)
    if head == "hydra" or said.key.startswith("hydra/"):
        return override
    if said.key == BASE_OPTION:
        return _base(said)
    if said.key in vocabulary.groups:
        return _group(said, vocabulary)
    if said.package:
        raise SweepError(f"{said.key!r} in {override!r} is no config group.{_meant(said.key, vocabulary.groups)}")
    if head == AXOLOTL:
        return _axolotl(said, rest) if not rest else _field(said, rest, vocabulary)
    if head in vocabulary.nodes:
        return _node(said, vocabulary)
    if head in vocabulary.fields.everywhere:
        return _field(said, said.key, vocabulary)
    raise _unknown(said, vocabulary)


def canonical_all(overrides: Iterable[str], vocabulary: Vocabulary) -> list[str]:
    """`canonical` of each. SweepError with all that mean nothing, not with the first of them."""
    taken: list[str] = []
    problems: list[str] = []
    for override in overrides:
        try:
            taken.append(canonical(override, vocabulary))
        except SweepError as problem:
            problems.append(str(problem))
    if len(problems) > 1:
        raise SweepError("\n".join(["Nothing was started.", *(f"- {problem}" for problem in problems)]))
    if problems:
        raise SweepError(problems[0])
    return taken


def _refuse_to_shorten(said: Parts) -> None:
    """Hydra 1.3 ends in a TypeError there."""
    named, _, last = said.key.rpartition(".")
    if said.sign == "~" and last.isdecimal():
        raise SweepError(
            f"{said}: an entry cannot be taken out of a list. Say the whole list without it: {named}=[...]"
        )


def _group(said: Parts, vocabulary: Vocabulary) -> str:
    """Hydra wants `+` exactly when a group is not in the defaults list, and says so in its own terms."""
    if said.value is not None and said.value.startswith("["):
        swept = f"-m {said.key}={said.value.strip('[]')}"
        raise SweepError(f"{said} would lay the options over one another, the last one on top. To sweep: {swept}")
    for option in re.split(r"[,()]", said.value or ""):
        if _NO_TEXT.fullmatch(option.strip()):
            raise SweepError(no_such_option(said.key, option.strip(), vocabulary.groups[said.key]))
    if said.sign in ("", "+") and not said.package:
        return f"{'' if said.key in vocabulary.chosen else '+'}{said.key}={said.value}"
    return str(said)


def _base(said: Parts) -> str:
    if said.sign == "~" or not said.value:
        raise SweepError(f"{said}: the path of an Axolotl config is expected, as in {BASE_OPTION}=my-axolotl.yml.")
    return f"{BASE_OPTION}={said.value}"


def no_such_option(group: str, option: str, options: Sequence[str]) -> str:
    """The sentence for an option that a group does not have.

    >>> no_such_option("lora", "16", ["r8", "r16"])
    'lora=16: there is no such lora. Did you mean r16? There are: r8, r16.'
    """
    there_are = f"{did_you_mean(option, options)} There are: {', '.join(options)}."
    return f"{group}={option}: there is no such {group}.{there_are}"


def _axolotl(said: Parts, rest: str) -> str:
    if said.sign == "~":
        raise SweepError("~axolotl would take out the whole run. Write ~KEY for one key.")
    if not said.value or not said.value.startswith("{"):
        raise SweepError(f"{said}: axolotl is a run's whole config. Write KEY=value for one key.")
    return str(Parts("++", AXOLOTL, "", said.value))


def _field(said: Parts, key: str, vocabulary: Vocabulary) -> str:
    if (problem := unknown_key(key.split("."), vocabulary.fields)) is not None:
        raise SweepError(f"{said}: {problem}")
    sign = "~" if said.sign == "~" else "++"
    return str(Parts(sign, f"{AXOLOTL}.{key}", "", said.value))


def _node(said: Parts, vocabulary: Vocabulary) -> str:
    nodes = vocabulary.nodes
    if said.key == FROM and said.value:
        said = replace(said, value=_LIKE_A_NUMBER.sub(lambda key: f"'{key[0]}'", said.value))
    for depth, name in enumerate(said.key.split(".")):
        before = ".".join(said.key.split(".")[:depth])
        if name not in nodes:
            if before and not nodes:
                return str(said)  # below a value: Hydra knows whether it is a list
            raise SweepError(f"{said}: {before} has no {name}.{_meant(name, nodes)} It has: {', '.join(nodes)}.")
        nodes = nodes[name]
    return str(said)


def _unknown(said: Parts, vocabulary: Vocabulary) -> SweepError:
    known = [*vocabulary.groups, *vocabulary.nodes, *vocabulary.fields.everywhere]
    known += [f"{node}.{name}" for node, names in vocabulary.nodes.items() for name in names]
    elsewhere = ELSEWHERE.get(said.key)
    meant = f" Did you mean {elsewhere}?" if elsewhere else _meant(said.key, known)
    return SweepError(f"{str(said)!r}: {said.key!r} is no config group, no config key and no Axolotl key.{meant}")


def _meant(name: str, known: Iterable[str]) -> str:
    return did_you_mean(name, known)


def spoken(override: str, vocabulary: Vocabulary) -> str:
    """The inverse of `canonical`, as far as it can be undone: the shortest form that means the same."""
    for forced, sign in ((f"++{AXOLOTL}.", ""), (f"~{AXOLOTL}.", "~")):
        if override.startswith(forced):
            bare = override.removeprefix(forced)
            key = bare.partition("=")[0]
            ambiguous = key in vocabulary.groups or key.partition(".")[0] in vocabulary.nodes
            return f"{sign}{AXOLOTL}.{bare}" if ambiguous else f"{sign}{bare}"
    return base_spoken(override, vocabulary)


def base_spoken(override: str, vocabulary: Vocabulary) -> str:
    """base=FILE again, for an experiment that stands for it."""
    key, _, option = override.partition("=")
    if key != EXPERIMENT or option not in vocabulary.bases:
        return override
    return f"{BASE_OPTION}={written(vocabulary.bases[option])}"


# Values. Hydra's grammar is narrower than YAML's: what it would not read back as the same is quoted.

_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_/\-+.%@?|]*")
_RESERVED = re.compile(r"true|false|null|nan|inf", re.I)


def written(value: Any) -> str:
    """A value from a YAML file as Hydra's grammar writes it: it reads back equal, whatever it holds.

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
    raise SweepError(f"{value!r} ({type(value).__name__}) has no form on Hydra's command line.")


def _key(key: Any) -> str:
    """Hydra knows no quotes around a dict's keys; it escapes instead."""
    return re.sub(r"([\\()\[\]{}:=, \t])", r"\\\1", key) if isinstance(key, str) else written(key)


def _quoted(text: str) -> str:
    """Quotes, and backslashes before them, are escaped; nothing else is."""
    mark = '"' if "'" in text and '"' not in text else "'"
    escaped = re.sub(rf"(\\*){mark}", lambda found: found[1] * 2 + "\\" + mark, text)
    trailing = "\\" * (len(escaped) - len(escaped.rstrip("\\")))
    return f"{mark}{escaped}{trailing}{mark}"


def axis(key: str, value: Any) -> str:
    """One entry of `hydra.sweeper.params` as an override: a YAML list is an axis, a string is Hydra's own.

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
    """The override with its value quoted for Hydra, and the whole quoted for a shell.

    >>> print(in_a_shell("datasets.0.split=train[:100]"))
    'datasets.0.split="train[:100]"'
    """
    said = parts(override)
    value = "" if said.value is None else said.value
    inner = value.replace("\\", "\\\\").replace('"', '\\"') if '"' in value else value
    return shlex.quote(f'{said.sign}{said.key}{said.package}="{inner}"')
