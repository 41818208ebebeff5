"""The command line of a verb: argparse, which says its user's mistakes as the rest of axosweep does, in one message."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from typing import Any, NoReturn

from runner.errors import SweepError, did_you_mean


class VerbParser(argparse.ArgumentParser):
    """`axosweep VERB`. Raises SweepError for what it does not take.

    `more`: what is said of words that are too many.
    """

    def __init__(self, verb: str, description: str | None = None, *, more: str = "", **options: Any) -> None:
        super().__init__(prog=f"axosweep {verb}", description=description, allow_abbrev=False, **options)
        self._verb, self._more = verb, more

    def read(self, words: Sequence[str]) -> argparse.Namespace:
        for word in itertools.takewhile(lambda word: word != "--", words):
            self._refuse_unknown(word)  # first: argparse would take what follows it for something else
        asked, left = self.parse_known_args(words)
        if left:
            self.error(f"{' '.join(left)}: {'a word' if len(left) == 1 else f'{len(left)} words'} too many", self._more)
        return asked

    def error(self, message: str, more: str = "") -> NoReturn:
        said = " ".join(filter(None, (f"{self._verb}: {message.removeprefix('argument ').rstrip('.')}.", more)))
        raise SweepError(f"{said} See {self.prog} --help.")

    def _refuse_unknown(self, word: str) -> None:
        flag = word.partition("=")[0]
        looks_like_one = flag.startswith("-") and not flag.lstrip("-")[:1].isdecimal() and len(flag.split()) == 1
        if looks_like_one and flag != "-" and flag not in self._option_string_actions:
            meant = did_you_mean(flag, self._option_string_actions)
            raise SweepError(f"There is no flag {flag} of {self.prog}.{meant} See {self.prog} --help.")
