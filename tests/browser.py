"""Headless Chromium, driven by its own chromedriver over the W3C WebDriver protocol: what a person would do and see.

Both come with the operating system (Debian: chromium, chromium-driver). Where they are missing, `needs_chromium` skips.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
needs_chromium = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver (Debian: chromium, chromium-driver)"
)
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-webgl --disable-quic --no-first-run --hide-scrollbars "
    "--disable-background-networking --disable-component-update --disable-sync --disable-dev-shm-usage"
).split()
START_S = 30.0
KEYS = {"Tab": "\ue004", "Enter": "\ue007", "Escape": "\ue00c", "Up": "\ue013", "Down": "\ue015"}
"""WebDriver's codes of keys that are not characters."""


@dataclass(frozen=True)
class Browser:
    driver: http.client.HTTPConnection
    """One for all commands: a new connection takes longer than most of them."""
    session: str
    """The path of the WebDriver session."""

    def open(self, address: str) -> None:
        self._post("url", {"url": address})

    def run(self, script: str, *arguments: Any) -> Any:
        """The value that the script returns."""
        return self._post("execute/sync", {"script": script, "args": list(arguments)})

    def look(self, width: int, *, dark: bool = False, height: int = 900) -> None:
        """Set the width of the screen, in pixels."""
        self.devtools(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.devtools("Emulation.setEmulatedMedia", features=[scheme])

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """With the mouse, in pixels of the viewport."""
        moves = [{"type": "pointerMove", "x": round(start[0]), "y": round(start[1]), "duration": 0}]
        moves += [{"type": "pointerDown", "button": 0}]
        for part in (0.3, 0.6, 1.0):
            x, y = (start[axis] + (end[axis] - start[axis]) * part for axis in (0, 1))
            moves.append({"type": "pointerMove", "x": round(x), "y": round(y), "duration": 40})
        moves += [{"type": "pointerUp", "button": 0}]
        self._post("actions", {"actions": [{"type": "pointer", "id": "mouse", "actions": moves}]})

    def press(self, *keys: str) -> None:
        """One key after the other, by its character or one of `KEYS`."""
        taps = [{"type": kind, "value": KEYS.get(key, key)} for key in keys for kind in ("keyDown", "keyUp")]
        self._post("actions", {"actions": [{"type": "key", "id": "keyboard", "actions": taps}]})

    def wait(self, script: str, timeout_s: float = 10.0) -> Any:
        """Wait until the script returns something true, and return that."""
        deadline = time.monotonic() + timeout_s
        while not (found := self.run(script)):
            assert time.monotonic() < deadline, f"never came: {script}"
            time.sleep(0.05)
        return found

    def print(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self._post("print", {"background": True})))

    def console(self) -> list[str]:
        """What the page has written to the console since the last time, including errors of loading."""
        return [f"{one['level']} {one['message']}" for one in self._post("se/log", {"type": "browser"})]

    def requests(self) -> list[str]:
        """The addresses that were requested since the last time, including the page's own."""
        events = [json.loads(one["message"])["message"] for one in self._post("se/log", {"type": "performance"})]
        return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]

    def cpu_seconds(self) -> float:
        """The processor time of the page's process so far."""
        self.devtools("Performance.enable")
        measured = self.devtools("Performance.getMetrics")["metrics"]
        return next(float(one["value"]) for one in measured if one["name"] == "ProcessTime")

    def devtools(self, command: str, **parameters: Any) -> Any:
        return self._post("goog/cdp/execute", {"cmd": command, "params": parameters})

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        return _ask(self.driver, "POST", f"{self.session}/{path}", body)


@contextlib.contextmanager
def chromium(folder: Path) -> Iterator[Browser]:
    """A browser with an empty profile in `folder`. Ends with all its processes."""
    assert CHROMIUM
    assert DRIVER
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    process = subprocess.Popen([DRIVER, f"--port={port}", f"--log-path={folder / 'chromedriver.log'}"])
    driver = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        _until_up(driver, process)
        options = {"binary": CHROMIUM, "args": [*FLAGS, f"--user-data-dir={folder / 'profile'}"]}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}
        made = _ask(driver, "POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        session = f"/session/{made['sessionId']}"
        try:
            browser = Browser(driver, session)
            browser.open("about:blank")
            browser.requests()  # from the browser's own first page
            yield browser
        finally:
            _ask(driver, "DELETE", session)
    finally:
        driver.close()
        process.terminate()
        process.wait(10)


def _until_up(driver: http.client.HTTPConnection, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_S
    while True:
        assert process.poll() is None, "chromedriver ended"
        try:
            if _ask(driver, "GET", "/status")["ready"]:
                return
        except OSError:
            assert time.monotonic() < deadline, "chromedriver does not answer"
        time.sleep(0.05)


def _ask(driver: http.client.HTTPConnection, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body)
    try:
        driver.request(method, path, data, {"Content-Type": "application/json"})
        answer = driver.getresponse()
        value = json.load(answer)["value"]
    except BaseException:
        driver.close()  # the next command needs a new one, since this one may still bring this answer
        raise
    assert answer.status < 400, f"{path}: {value['message']}"
    return value
