"""--help is correct: every group is in it with every option, and its examples can be planned."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from typing import Any

import pytest

from runner.cli import main
from runner.command import VERBS
from runner.command import help as help_page
from runner.config.vocabulary import read_vocabulary


def test_help_names_every_group_with_its_options() -> None:
    text = help_page.text()
    for group, options in read_vocabulary().groups.items():
        assert f"  {group}" in text
        assert all(option in text for option in options)


def test_help_names_every_key_that_may_be_set() -> None:
    words = set(re.findall(r"[\w.]+", help_page.text().partition("base=FILE")[0]))
    for node, names in read_vocabulary().nodes.items():
        for name, further in names.items():
            assert {f"{node}.{name}", *further} <= words


def test_help_has_a_line_for_every_verb() -> None:
    verbs = help_page.text().partition("\nVerbs")[2].partition("\nFlags")[0]
    assert [line.split()[0] for line in verbs.splitlines() if re.match(r"  [a-z-]+( |$)(?!--)", line)] == [
        name for name in VERBS if not name.startswith("_")
    ]
    assert "  pull RUN [WHAT DIR ...]\n" in verbs
    assert "  warm [status|stop]   Show or end the preloaded trainers" in verbs
    assert all(len(line) <= 110 for line in verbs.splitlines())


@pytest.mark.parametrize(
    ("line", "runs"), [(line, runs) for (line, _), runs in zip(help_page.EXAMPLES, (1, 4, 6), strict=True)]
)
def test_every_example_plans(ask: Callable[..., Any], line: str, runs: int) -> None:
    program, *arguments = shlex.split(line)
    assert program == "axosweep"
    assert len(ask(*arguments, "action=plan").experiments) == runs


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_the_application_shows_it_too(ask: Callable[..., Any], capsys: pytest.CaptureFixture[str], flag: str) -> None:
    ask(flag)
    assert capsys.readouterr().out.strip() == help_page.text()


def test_plan_has_a_page_of_its_own_with_each_of_its_flags(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["plan", "-m", "--help"])
    page = capsys.readouterr().out
    assert ended.value.code == 0
    assert page.startswith("usage: axosweep plan ")
    assert page != help_page.text()
    assert all(f"  {flag} " in page for flag in ("--json", "--overrides", "--diff SWEEP", "--write DIR"))
