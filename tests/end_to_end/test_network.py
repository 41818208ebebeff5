"""A sweep over local files sends no request: no telemetry, no update check, no look-up, and so no time-out without a
network. A proxy of the test, which every library here uses, records each attempt.
"""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.end_to_end.axosweep import Axosweep, kill, wait_until

pytestmark = pytest.mark.slow

WORDS = ("-m", "seed=1", "max_steps=2", "data.limit=200", "tracking=offline")
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")


class Proxy:
    """A proxy that records the address of each request, and refuses it."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def close(self) -> None:
        self._socket.close()

    def _listen(self) -> None:
        while True:
            try:
                line, _ = self._socket.accept()
            except OSError:
                return
            with line:
                self.heard.append(line.recv(1 << 12).partition(b"\r\n")[0].decode(errors="replace"))


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    proxy = Proxy()
    yield proxy
    proxy.close()


def apart(axosweep: Axosweep, proxy: Proxy, **variables: str) -> Axosweep:
    ways = dict.fromkeys(PROXIES, proxy.address) | {"NO_PROXY": "", "no_proxy": ""}
    return axosweep.with_variables(ways | variables).without_forks()


def test_a_sweep_over_local_files_makes_no_request_and_who_does_ask_is_heard(alone: Axosweep, proxy: Proxy) -> None:
    """Its preloaded trainer does not wait for another command, and so does not put its memory into huge pages. Who does
    ask is the same sweep with everything that the user's own environment may turn on, which waits minutes for an
    answer."""
    done = apart(alone, proxy).run(*WORDS)
    assert done.returncode == 0, done.stderr
    assert proxy.heard == []

    shutil.rmtree(alone.store.runs)  # the configs are known to be right, and their dataset is prepared
    on = {"AXOLOTL_DO_NOT_TRACK": "0", "DO_NOT_TRACK": "0"}
    launcher = apart(alone, proxy, **on).start(*WORDS, "executor.warm=false")  # which telemetry makes it anyway
    wait_until(lambda: any("posthog" in line for line in proxy.heard), "Axolotl's telemetry", 200)
    kill(launcher.pid)  # otherwise it would start its next step when this one is killed
    launcher.wait()
