"""Containers run the Python that the test names, such as the trainer environment, which does not have Modal."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import modal
import pytest
import typing_extensions

from tests.modal_server import ModalServer, Settings
from tests.modal_server.deployed import Small, deploy_small
from tests.modal_server.fixture import client_of, needs_mounts
from tests.modal_server.interpreter import inspect_interpreter
from tests.modal_server.settings import REPOSITORY


@pytest.fixture
def bare_python(tmp_path: Path) -> Path:
    """An environment with one package of its own, named like one of the client's."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")], check=True)
    python = tmp_path / "bare" / "bin" / "python"
    packages = next((tmp_path / "bare" / "lib").glob("python*/site-packages"))
    (packages / "typing_extensions.py").write_text(Path(typing_extensions.__file__).read_text())
    return python


@pytest.fixture
def modal_settings(bare_python: Path) -> Settings:
    return Settings(container_python=bare_python)


def test_the_clients_packages_come_after_those_of_the_interpreter(small: Small, modal_server: ModalServer) -> None:
    seen = small("describe").remote()
    own = next(i for i, path in enumerate(seen["path"]) if "bare/lib" in path)
    client = seen["path"].index(str(Path(modal.__file__).parent.parent))
    assert own < client == len(seen["path"]) - 1
    assert seen["prefix"] == str(modal_server.settings.container_python.parent.parent)
    assert "PYTHONPATH" not in seen["environment"]


def test_an_interpreter_that_has_modal_runs_the_entrypoint_as_it_is() -> None:
    assert inspect_interpreter(Path(sys.executable)).entrypoint == ("-m", "modal._container_entrypoint")


@needs_mounts
def test_a_container_that_was_forked_sees_what_one_with_an_interpreter_of_its_own_sees(
    fresh_app: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    for variables in ({}, {"LD_PRELOAD": ""}):  # a fork would not load it
        with (
            ModalServer(Settings(container_environment=variables)) as server,
            client_of(server, monkeypatch) as client,
        ):
            described = deploy_small(server, client)("describe").remote()
        own = ("LD_PRELOAD", "MODAL_TASK_ID", "MODAL_FUNCTION_ID")
        environment = {name: value for name, value in described["environment"].items() if name not in own}
        seen.append({**described, "environment": environment})
    assert seen[0] == seen[1]


TRAINER = REPOSITORY / ".axosweep" / "trainer" / "bin" / "python"


@pytest.mark.slow
@pytest.mark.skipif(not TRAINER.exists(), reason="the trainer environment is not installed")
class TestTrainerEnvironment:
    @pytest.fixture
    def modal_settings(self) -> Settings:
        return Settings(container_python=TRAINER)

    def test_containers_run_in_it_and_what_they_start_knows_nothing_of_modal(self, small: Small) -> None:
        seen = small("import_here_and_in_a_child").remote("axolotl", "modal", "google.protobuf")
        assert "trainer" in seen["here"]["axolotl"]
        assert "trainer" not in seen["here"]["modal"]
        assert "trainer" in seen["child"]["axolotl"]
        assert seen["child"]["modal"] == "None"
        assert seen["child"]["google.protobuf"] == seen["here"]["google.protobuf"]
