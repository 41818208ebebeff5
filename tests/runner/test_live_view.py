"""The live view on a real pseudo-terminal, at every redraw. What its user sees is stored as text in golden/live_*.txt
(AXOSWEEP_RENEW_GOLDEN=1 renews it).
"""

from __future__ import annotations

import fcntl
import os
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runner.console.harmless import harmless
from tests.runner.live_view_script import AT_A_TIME, END_OF_FRAME, FAILED_RUNS, FRAMES_A_RUN, NOTE, NOTED, OUT_OF_MEMORY
from tests.terminal import Terminal

SCRIPT = Path(__file__).with_name("live_view_script.py")
GOLDEN = Path(__file__).parent / "golden"
RUNS = 24
KEPT = (0, 1, 5, 10, 16, 24)
"""The frames that are stored as text."""
LEFT = re.compile(r"elapsed, (about \d+ (s|min)|under 10 s) left")


class Shown:
    """The script on a terminal of its own, frame by frame."""

    def __init__(self, store: Path, columns: int, rows: int, runs: int, environment: dict[str, str]) -> None:
        self.screen = Terminal(columns, rows)
        self.bytes = b""
        self._ours, theirs = os.openpty()
        self.resize(columns, rows)
        command = [sys.executable, "-m", "tests.runner.live_view_script", str(store), str(runs)]
        kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=theirs,
            env=kept | {"TERM": "xterm-256color", "PYTHONUTF8": "1"} | environment,
        )
        os.close(theirs)

    def frame(self) -> list[str]:
        """What is visible after one more redraw."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        read = b""
        while not read.endswith(END_OF_FRAME):
            read += os.read(self._ours, 65536)
        self.bytes += read
        self.screen.feed(read.removesuffix(END_OF_FRAME))
        return self.screen.lines()

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.screen.resize(columns, rows)

    def end(self) -> list[str]:
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait(30) == 0
        left = b""
        while True:
            try:
                left += os.read(self._ours, 65536)
            except OSError:  # how Linux reports that the other side is closed
                break
        self.screen.feed(left)
        os.close(self._ours)
        return self.screen.lines()


@pytest.fixture
def show(tmp_path: Path) -> Iterator[Callable[..., Shown]]:
    begun: list[Shown] = []

    def begin(columns: int, rows: int, runs: int = RUNS, **environment: str) -> Shown:
        begun.append(Shown(tmp_path / "store", columns, rows, runs, environment))
        return begun[-1]

    yield begin
    for one in begun:
        one._process.kill()
        one._process.wait()


def split(lines: list[str]) -> tuple[list[str], list[str]]:
    """The view, and what is visible above it."""
    head = next(place for place, line in enumerate(lines) if re.match(r"\d+ of \d+ done", line))
    return lines[head:], [line for line in lines[:head] if line]


def frames_of(runs: int) -> int:
    """The number of frames until the last run has ended. A failed run takes one frame less."""
    return runs // AT_A_TIME * FRAMES_A_RUN + 1


@pytest.mark.medium
@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (120, 40)])
def test_at_every_redraw_running_runs_the_count_the_bar_and_the_time_left_are_visible(
    show: Callable[..., Shown], columns: int, rows: int
) -> None:
    shown = show(columns, rows)
    kept: list[str] = []
    for number in range(frames_of(RUNS)):
        lines, above = split(shown.frame())
        text = "\n".join(lines)
        counted = re.search(r"^(\d+) of 24 done(?:, (\d) failed)?(?:, (\d) running)?  (━*)(─*) +(\d+) %$", text, re.M)
        assert counted, text
        running = [line for line in lines if line.startswith("▸")]
        assert len(running) == int(counted[3] or 0), "each running run is visible"
        names = [line[: lines[2].index("seed") + 4] for line in lines if line[:1] in "▸✓✗"]
        assert len(set(names)) == len(names), "no value is cut that tells two runs apart"
        assert counted[4] or counted[5]
        over = int(counted[1]) + int(counted[2] or 0) == RUNS
        assert bool(LEFT.search(text)) is not over, text
        assert above == ([NOTE] if number >= NOTED else []), "what was printed stays, and nothing of an earlier frame"
        marks = "".join(line[:1] for line in lines if line[:1] in "▸✓✗")
        assert re.fullmatch("▸*✗*✓*", marks), "running ones, then failed ones, then finished ones"
        assert len(lines) < rows
        assert all(len(line) <= columns for line in lines)
        if number in KEPT:
            kept += [f"{f' frame {number} ':=^{columns}}", *lines]
    assert f"{RUNS - len(FAILED_RUNS)} of 24 done, 2 failed  " in "\n".join(lines)
    assert f"failed (oom): {harmless(OUT_OF_MEMORY)[:9]}" in "\n".join(lines), "neutralized, and shown"
    assert b"\x1b]0;" not in shown.bytes
    shown.end()
    assert [line for line in shown.screen.everything() if line] == [NOTE], "the view is gone"
    assert shown.screen.cursor_shown
    _compare(f"live_{columns}x{rows}.txt", kept)


def test_a_window_that_changes_its_size_has_nothing_of_the_old_frame(show: Callable[..., Shown]) -> None:
    shown = show(120, 40)
    for number, (columns, rows) in enumerate(((120, 40), (70, 40), (60, 16), (100, 12), (140, 50), (50, 30))):
        shown.resize(columns, rows)
        lines, above = split(shown.frame())
        assert above in ([], [NOTE]), number
        assert sum(line.startswith("▸") for line in lines) == AT_A_TIME
        assert len(lines) < rows
        assert all(len(line) <= columns for line in lines)
    assert set(shown.end()) <= {NOTE}


@pytest.mark.medium
def test_two_hundred_runs_do_not_push_a_running_one_out_of_view(show: Callable[..., Shown]) -> None:
    shown = show(80, 24, runs=200)
    for _ in range(12):
        lines, _ = split(shown.frame())
        assert sum(line.startswith("▸") for line in lines) == AT_A_TIME
        assert len(lines) == 23
        assert lines[-1].endswith(" waiting")
    assert lines[0].startswith("9 of 200 done, 1 failed, 3 running")


def test_without_colours_or_unicode_the_same_is_visible(show: Callable[..., Shown]) -> None:
    shown = show(80, 24, NO_COLOR="1", LC_ALL="C", PYTHONUTF8="0", PYTHONIOENCODING="ascii", PYTHONCOERCECLOCALE="0")
    for _ in range(9):
        lines, _above = split(shown.frame())
    assert re.search(r"^6 of 24 done, 1 failed, 3 running  #+-+ +\d+ %$", lines[0])
    assert [line[0] for line in lines[3:13]] == [*">>>x++++++"]
    assert all(text.isascii() for text in lines)
    assert not re.search(rb"\x1b\[[0-9;]*3[0-9]m", shown.bytes), "no colours"


def _compare(name: str, lines: list[str]) -> None:
    path, text = GOLDEN / name, "\n".join(lines) + "\n"
    if os.environ.get("AXOSWEEP_RENEW_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")
