"""The command line of a verb: argparse, which reports a user's mistake as a SweepError."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, NoReturn

from runner.errors import SweepError, did_you_mean

STORE_HELP = "the folder with the results; AXOSWEEP_STORE or ./out by default"

BLANK = "empty, but a name is expected. Is a shell variable not set?"
HIGHEST_PORT = 65535


class Names(StrEnum):
    """What a word of a command line may name; completion offers those that exist."""

    SWEEP = "sweep"
    RUN = "run"
    """A run, or a sweep that stands for its runs."""
    DATASET = "dataset"
    FILE = "file"
    FOLDER = "folder"


class VerbParser(argparse.ArgumentParser):
    """`axosweep VERB`. Raises SweepError for a word or flag that it does not take.

    `more` is added to the message about too many words.
    """

    def __init__(self, verb: str, description: str | None = None, *, more: str = "", **options: Any) -> None:
        self.names: dict[str, tuple[str, ...]] = {}
        """By argument: the Names or literal words that completion offers for it."""
        self.free_text: set[str] = set()
        """Arguments that may be empty: they take a text, not a name."""
        super().__init__(prog=f"axosweep {verb}", description=description, allow_abbrev=False, **options)
        self._verb, self._more = verb, more

    def add(self, *flags: str, names: Sequence[str] = (), **options: Any) -> None:
        """`add_argument`, with what completion offers for it."""
        action = self.add_argument(*flags, **options)
        self.names[action.dest] = tuple(names)

    def add_sweep(self) -> None:
        """One word: the sweep that the verb is about."""
        known = "a sweep's id, or the beginning of it; the newest by default"
        self.add("sweep", nargs="?", names=[Names.SWEEP], help=known)

    def add_store(self) -> None:
        self.add("--store", names=[Names.FOLDER], help=STORE_HELP)

    def add_json(self, printed: str = "print JSON") -> None:
        self.add("--json", action="store_true", help=printed)

    @property
    def arguments(self) -> Sequence[argparse.Action]:
        """All flags and words that it takes, without --help."""
        return [action for action in self._actions if not isinstance(action, argparse._HelpAction)]

    def read(self, words: Sequence[str]) -> argparse.Namespace:
        for word in itertools.takewhile(lambda word: word != "--", words):
            self._refuse_unknown(word)  # first: argparse would misread the word after it
        args, extra = self.parse_known_args(words)
        if extra and "--" not in words:  # argparse takes words from one place only
            args, extra = self.parse_known_intermixed_args(words)
        if extra:
            number = "a word" if len(extra) == 1 else f"{len(extra)} words"
            self.error(f"{' '.join(extra)}: {number} too many", self._more)
        self.refuse_blank(args)
        return args

    def error(self, message: str, more: str = "") -> NoReturn:
        text = message.removeprefix("argument ").rstrip(".")
        text += "" if text.endswith("?") else "."
        raise SweepError(" ".join(filter(None, (f"{self._verb}: {text}", more, f"See {self.prog} --help."))))

    def refuse_blank(self, args: argparse.Namespace) -> None:
        """An empty name comes from a shell variable that is not set. As the beginning of a name, it would fit all."""
        for action in self.arguments:
            value = getattr(args, action.dest, None)
            values = value if isinstance(value, list) else [value]
            if action.dest not in self.free_text and any(isinstance(one, str) and not one.strip() for one in values):
                name = max(action.option_strings, key=len, default=str(action.metavar or action.dest).upper())
                self.error(f"{name} is {BLANK}")

    def _refuse_unknown(self, word: str) -> None:
        flag = word.partition("=")[0]
        looks_like_one = flag.startswith("-") and not flag.lstrip("-")[:1].isdecimal() and len(flag.split()) == 1
        if looks_like_one and flag != "-" and flag not in self._option_string_actions:
            meant = did_you_mean(flag, self._option_string_actions)
            raise SweepError(f"There is no flag {flag} of {self.prog}.{meant} See {self.prog} --help.")


def count(text: str) -> int:
    """The type of a flag that takes a number of things."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: a whole number, at least 1, is expected")
    return int(text)


def port_number(text: str) -> int:
    """The type of a flag that takes a port of this machine."""
    if not text.isdecimal() or int(text) > HIGHEST_PORT:
        raise argparse.ArgumentTypeError(f"{text} is not a port: expected 1 to {HIGHEST_PORT}, or 0 for any free port")
    return int(text)
