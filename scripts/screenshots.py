"""Renew the pictures in docs/images/: a real small sweep, its live view while it runs, and its report.

    make screenshots

The sweep trains on this machine's CPU, for a minute or two. Needs Debian's chromium and chromium-driver, as the tests
of the report do.
"""

from __future__ import annotations

import base64
import contextlib
import html
import os
import pty
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.browser import CHROMIUM, DRIVER, Browser, chromium
from tests.report_in_browser import opened
from tests.terminal import Terminal

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
SWEEP = ("-m", "lora=r4,r16", "learning_rate=1e-3,4e-3", "max_steps=60")
"""That of docs/tutorial/first-sweep.md."""
COLUMNS, LINES = 104, 14
RUNNING, DONE = "▸", "✓"
HEIGHT = 860
"""Of the report, in pixels: its top, down to the verdict."""
LARGEST = 150_000
"""Bytes of a picture: it is in every clone."""
PAGE = """<!doctype html><meta charset="utf-8"><style>
  body {{ margin: 0; background: #1d1f27; }}
  pre {{ margin: 0; padding: 16px 20px; font: 15px/1.4 "DejaVu Sans Mono", monospace; color: #dcdfe4; }}
  .done {{ color: #98c379; }} .running {{ color: #e5c07b; }} .typed {{ color: #61afef; }}
</style><pre>{text}</pre>"""


def main() -> int:
    if not (CHROMIUM and DRIVER):
        sys.stderr.write("No picture was renewed: chromium and chromedriver are not installed (Debian: chromium, "
                         "chromium-driver).\n")  # fmt: skip
        return 2
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="axosweep-") as name:
        folder = Path(name)
        frames = list(_live_view(folder))
        (report,) = folder.glob("out/sweeps/*/report.html")
        with chromium(folder) as browser:
            _picture_of_text(browser, _middle(frames), folder / "live.html", IMAGES / "live.png")
            opened(browser, report)
            browser.look(1280, height=HEIGHT)
            _picture(browser, IMAGES / "report.png")
    return 0


def _live_view(folder: Path) -> Iterator[list[str]]:
    """Launch the sweep on a terminal; each look of its screen."""
    ours, theirs = pty.openpty()
    variables = {**os.environ, "COLUMNS": str(COLUMNS), "LINES": str(LINES), "TERM": "xterm"}
    variables |= {"AXOSWEEP_WARM_IDLE_S": "0", "AXOSWEEP_STORE": "out"}
    command = [str(ROOT / ".venv" / "bin" / "axosweep"), *SWEEP, "tracking=disabled"]
    terminal = Terminal(COLUMNS, LINES)
    with subprocess.Popen(command, cwd=folder, env=variables, stdout=subprocess.DEVNULL, stderr=theirs) as process:
        os.close(theirs)
        with contextlib.suppress(OSError):  # the program has ended
            while written := os.read(ours, 1 << 16):
                terminal.feed(written)
                yield terminal.lines()
    os.close(ours)
    if process.returncode:
        raise SystemExit(f"The sweep ended with exit code {process.returncode}.")


def _middle(frames: list[list[str]]) -> list[str]:
    """A look with both finished and running runs."""
    both = [lines for lines in frames if {RUNNING, DONE} <= {line[:1] for line in lines if "train" in line}]
    lines = both[len(both) // 2]
    first = next(number for number, line in enumerate(lines) if " done" in line)
    return [f"$ axosweep {' '.join(SWEEP)}", *lines[first:]]


def _picture_of_text(browser: Browser, lines: list[str], page: Path, picture: Path) -> None:
    kinds = {DONE: "done", RUNNING: "running", "$": "typed"}
    spans = (f'<span class="{kinds.get(line[:1], "")}">{html.escape(line)}</span>' for line in lines)
    page.write_text(PAGE.format(text="\n".join(spans)), encoding="utf-8")
    browser.look(980, height=100)
    browser.open(page.as_uri())
    browser.look(980, height=int(browser.run("return document.querySelector('pre').offsetHeight")))
    _picture(browser, picture)


def _picture(browser: Browser, picture: Path) -> None:
    """What is on the screen."""
    shot = base64.b64decode(browser.devtools("Page.captureScreenshot", format="png")["data"])
    if len(shot) > LARGEST:
        raise SystemExit(f"{picture.name} has {len(shot)} bytes, more than {LARGEST}: choose a smaller part.")
    picture.write_bytes(shot)
    print(f"written {picture.relative_to(ROOT)}, {len(shot)} bytes")


if __name__ == "__main__":
    sys.exit(main())
