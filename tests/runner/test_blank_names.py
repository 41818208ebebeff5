"""An empty name on a command line comes from a shell variable that is not set. It never means every run."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from modal_app.store.layout import Store
from modal_app.store.step import StepKind
from runner.cli import main
from runner.command import VERBS
from runner.console.parser import VerbParser
from runner.errors import SweepError
from runner.store.finding import runs_in, sweep_in
from tests.conftest import RecordingLaunch
from tests.runner.removing_store import Command, trained


def parsers() -> Iterator[tuple[str, VerbParser]]:
    for verb, module in VERBS.items():
        if verb != "__complete":
            yield verb, importlib.import_module(f"runner.command.{module}").parser()


def blank_lines() -> Iterator[list[str]]:
    """A command line with one empty word, for every word and flag of every verb that is not a free text or number."""
    for verb, parser in parsers():
        needed = [one for one in parser.arguments if not one.option_strings and one.nargs is None]
        for action in parser.arguments:
            if action.nargs == 0 or action.type is not None or action.dest in parser.free_text:
                continue
            if isinstance(action, argparse.BooleanOptionalAction):
                continue
            others = ["" if one is action else "x" for one in needed]
            own = [] if action in needed else [*action.option_strings[-1:], ""]
            yield [verb, *others, *own]


@pytest.mark.parametrize("words", list(blank_lines()), ids=" ".join)
def test_an_empty_name_is_refused_by_every_verb(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for blank in ("", "  "):
        assert main([blank if word == "" else word for word in words]) == 2
        shown = capsys.readouterr()
        assert shown.out == ""
        assert shown.err.startswith("axosweep: ")
        assert len(shown.err.splitlines()) == 1


def test_an_empty_name_does_not_remove_the_runs_of_the_only_sweep(store: Store, command: Command) -> None:
    _, (one, other) = trained(store, 0.1, 0.2)
    assert "WHAT is empty" in command("rm", "", "--yes", code=2)
    assert "WHAT is empty" in command("rm", one.key, " ", "--yes", code=2), "next to a good name, too"
    assert all(store.folder(StepKind.TRAIN, run.key).done.exists() for run in (one, other))
    assert "is empty" in command("cancel", "", code=2)


def test_an_empty_name_finds_nothing(store: Store) -> None:
    trained(store, 0.1)
    for find in (runs_in, sweep_in):
        with pytest.raises(SweepError, match="is empty"):
            find([store], "")


@pytest.mark.parametrize("override", ["from=", "from='  '", "store=", "name=", "base="])
def test_an_override_that_names_something_is_not_empty(override: str, ask: Callable[..., RecordingLaunch]) -> None:
    """`from=$RUN` without the variable would train from scratch, under another key."""
    with pytest.raises(SweepError, match=r"is empty|is expected"):
        ask(override)


def test_what_is_not_a_name_may_be_empty(store: Store, command: Callable[..., Any]) -> None:
    trained(store, 0.1)
    assert "prompt" in command("infer", "--prompt", "", code=2).lower()
