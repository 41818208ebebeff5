import io

import pytest
from rich.console import Console

from runner.console import terminal

TEXT = f"[red]lr=[1e-3][/red] {'long ' * 30}end"


def test_results_and_messages_go_apart_and_stay_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.result(TEXT)
    terminal.message("beside", style="yellow")
    assert capsys.readouterr() == (f"{TEXT}\n", "beside\n")


def test_no_line_is_broken_for_a_narrow_terminal() -> None:
    console = Console(file=io.StringIO(), width=20, force_terminal=False)
    terminal.say(console, TEXT)
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue() == f"{TEXT}\n"
