"""What the `--json` output of all verbs has in common: one object, with the version of its format."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest

from modal_app.store.layout import Store
from modal_app.store.step import StepKind
from runner.cli import main
from runner.console.print_json import print_json
from tests.printed_json import read_printed
from tests.runner.builders import finish, finish_run, open_sweep, run
from tests.runner.test_report import strict_json

ONE = run({"learning_rate": 1})
LISTS = {
    "status": "sweeps",
    "status SWEEP": "runs",
    "compare": "runs",
    "best": "next",
    "data": "datasets",
    "data DATA": "samples",
    "ls": "parts",
    "warm": "trainers",
    "warm stop": "trainers",
    "rm RUN --dry-run": "to_delete",
    "gc --dry-run": "to_delete",
}
OF_VERSION_2 = ("status SWEEP", "compare", "best")


@dataclass(frozen=True)
class Versioned:
    runs: tuple[float, ...]
    version: int


@pytest.fixture
def sweep(store: Store) -> str:
    sweep = open_sweep(store, [ONE]).sweep
    finish_run(store, ONE, {0: 3.0, 9: 1.0})
    finish(store, StepKind.PREPROCESS, ONE.data_key, manifest={"rows": 1, "eval_fingerprint": "rows"})
    return sweep


@pytest.mark.parametrize("words", LISTS)
def test_a_verb_prints_one_object_with_a_version_and_a_list_by_its_name(
    store: Store, sweep: str, capsys: pytest.CaptureFixture[str], words: str
) -> None:
    named = {"SWEEP": sweep, "RUN": ONE.key, "DATA": ONE.data_key}
    main([*(named.get(word, word) for word in words.split()), "--json", "--store", str(store.root)])
    text = capsys.readouterr().out
    printed: dict[str, Any] = strict_json(text)
    assert next(iter(printed)) == "version"
    assert printed["version"] == (2 if words in OF_VERSION_2 else 1)
    assert isinstance(printed[LISTS[words]], list)
    read_printed(words.split()[0], text)


def test_an_object_that_brings_a_version_keeps_it(capsys: pytest.CaptureFixture[str]) -> None:
    print_json(Versioned((math.nan,), 7))
    assert list(strict_json(capsys.readouterr().out).items()) == [("version", 7), ("runs", [None])]
