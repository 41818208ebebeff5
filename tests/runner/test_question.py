"""The question before something is ended or removed, and what counts as a yes."""

from __future__ import annotations

import pytest

from runner.console.question import confirm
from runner.errors import SweepError


def asked(answer: str, *, on_terminal: bool = True) -> None:
    confirm(
        "End it?", no_terminal="Add --yes.", refused="Nothing was ended.", on_terminal=on_terminal, ask=lambda: answer
    )


def left() -> str:
    raise EOFError


@pytest.mark.parametrize("answer", ["y", "Y", " yes "])
def test_a_yes_is_a_yes(answer: str, capsys: pytest.CaptureFixture[str]) -> None:
    asked(answer)
    assert capsys.readouterr() == ("", "End it? [y/N] "), "standard output is for results"


@pytest.mark.parametrize("answer", ["", "n", "yep", "no"])
def test_anything_else_is_a_no(answer: str) -> None:
    with pytest.raises(SweepError, match="Nothing was ended"):
        asked(answer)


def test_a_closed_standard_input_is_not_a_yes() -> None:
    with pytest.raises(SweepError, match="Nothing was ended"):
        confirm("End it?", no_terminal="Add --yes.", refused="Nothing was ended.", on_terminal=True, ask=left)


def test_without_a_terminal_a_flag_says_yes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SweepError, match="Add --yes"):
        asked("y", on_terminal=False)
    assert capsys.readouterr().err == ""
