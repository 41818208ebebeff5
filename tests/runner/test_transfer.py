import io
import os
import time

from rich.console import Console

from runner.console import transfer
from tests.terminal import Terminal


def test_a_bar_says_how_much_is_done_and_how_long_it_will_still_take() -> None:
    ours, theirs = os.openpty()
    screen, seen = Terminal(100, 24), []
    with open(theirs, "w", encoding="utf-8") as file:
        console = Console(file=file, force_terminal=True, width=100, height=24, _environ={"TERM": "xterm"})
        with transfer.progress(50_000_000, "upload", console=console) as watch:
            for _ in range(4):
                watch(10_000_000)
                time.sleep(0.15)
                screen.feed(os.read(ours, 65536))
                seen += screen.lines()
    os.close(ours)
    assert any("upload" in line and "0:00 elapsed" in line for line in seen)
    assert any("/50.0 MB" in line and "under 10 s left" in line for line in seen)


def test_in_a_pipe_the_same_is_a_line_now_and_then() -> None:
    console = Console(file=io.StringIO(), width=10_000)
    with transfer.progress(1000, "bytecode", unit="files", console=console, line_every_s=0.0) as watch:
        watch(400)
        watch(600)
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue() == "bytecode: 400 of 1000 files, under 10 s left\n"
