"""Splits the Hydra application's command line into flags and overrides. Does not import Hydra."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from runner.errors import SweepError, did_you_mean

MULTIRUN = ("-m", "--multirun")
RUN = ("-r", "--run")
CFG = ("-c", "--cfg")
HOW_TO_SHOW = ("-p", "--package", "--resolve")
HELP = ("-h", "--help")
SHOWN_INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
SHOWN_CONFIG = ("job", "hydra", "all")

SWITCHES = (*MULTIRUN, *RUN, *HELP, "--version", "--resolve")
"""All of Hydra's but --hydra-help, which lists every folder below the search path, even environments."""
VALUED = {
    "-c": SHOWN_CONFIG, "--cfg": SHOWN_CONFIG,
    "-p": (), "--package": (),
    "-cn": (), "--config-name": (),
    "-cp": (), "--config-path": (),
    "-cd": (), "--config-dir": (),
}  # fmt: skip
"""Flags that take a value, with the accepted values (empty: any value)."""
KEYS_NOT_FLAGS = {"--store": "store=DIR", "--name": "name=NAME", "--budget": "budget=DOLLARS"}
"""Flags of verbs, with the key that a run takes instead."""
FLAGS_OF_OURS = {"--force": "force=true", "--json": "json=true", "--yes": "confirmed=true"}
"""Flags that Hydra does not have, with the override that each stands for."""
TEXTS = {"--note": "note", "--notify-command": "notify_command"}
"""Flags of ours with a text, and the field of the Request that it becomes. As an override, it would be quoted twice."""
AXIS_RULES = {"--zip": "lora_r,lora_alpha", "--exclude": "'lora=r128 learning_rate=8e-4'"}
"""Flags of ours about the axes of a sweep, each with an example. They may be repeated."""
INFO = ("-i", "--info")
COMPLETION = ("-sc", "--shell-completion")


@dataclass(frozen=True, slots=True)
class Arguments:
    flags: tuple[str, ...]
    """All of them, values included, as Hydra's parser takes them."""
    overrides: tuple[str, ...]
    texts: Mapping[str, str] = field(default_factory=dict)
    """Field of the Request -> the text of the flag."""
    zips: tuple[str, ...] = ()
    """The texts of --zip."""
    excludes: tuple[str, ...] = ()
    """The texts of --exclude."""

    @property
    def multirun(self) -> bool:
        return any(flag in MULTIRUN for flag in self.flags)

    @property
    def shows_only(self) -> bool:
        """Whether Hydra only prints something and nothing runs: --cfg and --info."""
        names = {flag.partition("=")[0] for flag in self.flags}
        return bool(names & {*CFG, *INFO})

    def split_off(self, *names: str) -> tuple[Arguments, str | None]:
        """The arguments without a flag that takes a value, and that value: the last one if the flag is given twice."""
        rest: list[str] = []
        value, remaining = None, list(self.flags)
        while remaining:
            word = remaining.pop(0)
            name, equals, text = word.partition("=")
            if name in names:
                value = text if equals else remaining.pop(0)
            else:
                rest.append(word)
        return replace(self, flags=tuple(rest)), value


def take_apart(arguments: Sequence[str]) -> Arguments:
    """SweepError for a flag that Hydra does not have."""
    flags: list[str] = []
    overrides: list[str] = []
    rules: dict[str, list[str]] = {flag: [] for flag in AXIS_RULES}
    texts, remaining = dict[str, str](), list(arguments)
    while remaining:
        word = remaining.pop(0)
        name, equals, text = word.partition("=")
        if name in TEXTS:
            texts[TEXTS[name]] = _text(name, text if equals else remaining.pop(0) if remaining else "")
        elif name in AXIS_RULES:
            rules[name].append(_rule(name, text if equals else remaining.pop(0) if remaining else ""))
        elif word in FLAGS_OF_OURS:
            overrides.append(FLAGS_OF_OURS[word])
        elif not word.startswith("-"):
            overrides.append(word)
        elif word in SWITCHES or word in COMPLETION or (equals and name in VALUED):
            flags.append(word)
        elif word in VALUED:
            flags += [word, _value(word, remaining)]
        elif word in INFO:
            flags += [word, remaining.pop(0) if remaining and remaining[0] in SHOWN_INFO else "all"]
        elif equals and name in INFO:
            flags.append(word)
        elif equals and name in (*SWITCHES, *FLAGS_OF_OURS):
            raise SweepError(f"{word}: {name} takes no value. Write {name}, or leave it out.")
        else:
            raise SweepError(f"There is no flag {name} here.{_meant(name)} See axosweep --help.")
    _check_together(flags)
    return Arguments(tuple(flags), tuple(overrides), texts, tuple(rules["--zip"]), tuple(rules["--exclude"]))


def _check_together(flags: Sequence[str]) -> None:
    """SweepError for flags that exclude each other, and for those that have no effect alone."""
    names = {flag.partition("=")[0] for flag in flags}
    shows_config = not names.isdisjoint(CFG)
    if shows_config and not names.isdisjoint(INFO):
        raise SweepError("--cfg and --info each print something else. Choose one of the two.")
    if not names.isdisjoint(MULTIRUN) and not names.isdisjoint(RUN):
        raise SweepError("-m asks for a sweep, and --run for one run. Choose one of the two.")
    if not shows_config and (alone := sorted(names & {*HOW_TO_SHOW})):
        raise SweepError(f"{alone[0]} says how --cfg prints the config. Add --cfg job, or leave it out.")


def _rule(flag: str, text: str) -> str:
    if not text.strip() or text.startswith("-"):
        raise SweepError(f"{flag} takes a value: {flag} {AXIS_RULES[flag]}.")
    return text.strip()


def _text(flag: str, text: str) -> str:
    if not text.strip():
        raise SweepError(f'{flag} takes a text in quotes: {flag} "...".')
    return text.strip()


def _meant(flag: str) -> str:
    if flag in KEYS_NOT_FLAGS:
        return f" Write {KEYS_NOT_FLAGS[flag]}."
    return did_you_mean(flag, (*SWITCHES, *FLAGS_OF_OURS, *TEXTS, *AXIS_RULES, *VALUED, *INFO, *COMPLETION))


def _value(flag: str, remaining: list[str]) -> str:
    choices = VALUED[flag]
    if not remaining or (choices and remaining[0] not in choices):
        raise SweepError(f"{flag} takes a value{': ' + ', '.join(choices) if choices else ''}.")
    return remaining.pop(0)
