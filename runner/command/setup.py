"""`axosweep setup`: build the locked environment that runs Axolotl."""

from __future__ import annotations

from collections.abc import Sequence

from runner.console.parser import VerbParser
from runner.environment import trainer_environment


def parser() -> VerbParser:
    return VerbParser("setup", description="Build the locked environment that runs Axolotl (about 8 GB).")


def main(words: Sequence[str]) -> int:
    parser().read(words)
    print(trainer_environment.build())
    return 0
