"""The first launch in docs/modal.md, command by command, with the real client and the local Modal."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.environment import trainer_environment
from tests.end_to_end.axosweep import Axosweep
from tests.hub_server import Hub, serve_hub
from tests.modal_server import ModalServer
from tests.modal_server.fixture import needs_mounts, noop_settings

pytestmark = [pytest.mark.slow, needs_mounts]

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "modal.md"
NOT_RUN = {"modal token new": "it opens a browser, and waits for a login there"}
FENCED = re.compile(r"^```\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """The commands in the section's code blocks, one a line, without comments."""
    (section,) = re.findall(r"^## The first launch\n(.*?)^## ", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    lines = "".join(FENCED.findall(section)).splitlines()
    return [shlex.join(shlex.split(line, comments=True)) for line in lines if line.strip()]


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A hub with what experiment=llama3_8b_alpaca names; its contents are not read."""
    with serve_hub("NousResearch/Meta-Llama-3-8B-Instruct", ROOT / "tiny" / "model") as hub:
        hub.add("fozziethebeat/alpaca_messages_2k_test", ROOT / "tiny" / "data", kind="datasets")
        yield hub


@pytest.fixture
def server(hub: Hub) -> Iterator[ModalServer]:
    """There is no secret yet: the page creates it. Steps do nothing, except for the fetch."""
    environment = {"HF_ENDPOINT": hub.url}
    settings = noop_settings(container_python=trainer_environment.find(), container_environment=environment)
    with ModalServer(settings) as server:
        yield server


def test_each_command_of_the_section_does_what_it_says(axosweep: Axosweep, hub: Hub, server: ModalServer) -> None:
    on_modal = Axosweep(axosweep.store, axosweep.folder, {**server.environment(), "HF_ENDPOINT": hub.url})
    asked = commands()
    assert set(NOT_RUN) <= set(asked), "what is left out by name is still there"
    for line in asked:
        if line in NOT_RUN:
            continue
        done = run(line, on_modal)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    assert list(axosweep.folder.glob("**/adapter_model.safetensors")), "axosweep pull brought no adapter"
    assert {call.gpu for call in server.function_calls("train")} == {"", "A100-80GB"}
    lists = {call.gpu for name in server.function_specs() if "_" in name for call in server.function_calls(name)}
    assert lists == {"A100-80GB:2", "A100-80GB:4"}
    assert not server.unknown_calls()


def run(line: str, on_modal: Axosweep) -> subprocess.CompletedProcess[str]:
    """One command, with the newest sweep and its first run in place of their placeholders."""
    program, *words = shlex.split(line)
    if any(name in word for word in words for name in ("SWEEP", "RUN")):
        plan = max(on_modal.store.root.glob("modal/sweeps/*/plan.json"), key=lambda path: path.stat().st_mtime)
        key = on_modal.json("compare", plan.parent.name)["runs"][0]["key"]
        words = [word.replace("SWEEP", plan.parent.name).replace("RUN", key) for word in words]
    if program == "axosweep":
        return on_modal.run(*words)
    assert program == "modal"
    command = [sys.executable, "-m", "modal", *words]
    return subprocess.run(
        command, cwd=on_modal.folder, env=on_modal.variables(), capture_output=True, text=True, check=False, timeout=120
    )
