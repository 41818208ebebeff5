from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import modal
import pytest

from tests.modal_server import ModalServer, Settings
from tests.modal_server.deployed import Small


@pytest.fixture
def modal_settings() -> Settings:
    return Settings(grace_s=0.5)


def signals(server: ModalServer) -> list[str]:
    return list(server.dict_items("claims").get("signals", []))


@pytest.mark.parametrize(
    ("stubborn", "seen"),
    [
        (0, ["InputCancellation"]),
        pytest.param(1, ["InputCancellation", "KeyboardInterrupt"], marks=pytest.mark.slow),
    ],
)
def test_a_timeout_cancels_then_interrupts_then_kills(
    small: Small, modal_server: ModalServer, stubborn: int, seen: list[str]
) -> None:
    with pytest.raises(modal.exception.FunctionTimeoutError):
        small("outlast").spawn(stubborn).get(timeout=20)
    assert signals(modal_server) == seen


@pytest.mark.slow
def test_who_ignores_all_signals_is_killed(small: Small, modal_server: ModalServer) -> None:
    with pytest.raises(modal.exception.FunctionTimeoutError):
        small("outlast").spawn(9).get(timeout=20)
    assert signals(modal_server) == ["InputCancellation", "KeyboardInterrupt"]
    task = modal_server.wait_until(lambda: [task for task in modal_server.tasks() if task.ended_at])[0]
    assert task.exit_code == 137


@pytest.mark.slow
def test_a_timed_out_call_is_retried_as_often_as_its_policy_says(small: Small, modal_server: ModalServer) -> None:
    with pytest.raises(modal.exception.FunctionTimeoutError):
        small("outlast").with_options(retries=1).spawn(0).get(timeout=20)
    assert signals(modal_server) == ["InputCancellation"] * 2


def test_cancelling_ends_what_runs_and_what_waits(
    small: Small, modal_server: ModalServer, client: modal.Client
) -> None:
    alone = small("sleep_on").with_options(max_containers=1)
    running, waiting = alone.spawn(0), alone.spawn(0)
    modal_server.wait_until(lambda: modal_server.dict_items("claims").get("sleeping"))
    for call in (running, waiting):
        modal.FunctionCall.from_id(call.object_id, client=client).cancel()
        with pytest.raises(modal.exception.RemoteError):
            call.get(timeout=5)
    modal_server.wait_until(lambda: signals(modal_server) == ["InputCancellation"])
    assert [call.status for call in modal_server.function_calls()] == ["terminated", "terminated"]
    assert modal_server.tasks()[0].ended_at == 0


def test_cancelling_with_the_containers_ends_them_within_the_grace_time(
    small: Small, modal_server: ModalServer
) -> None:
    call = small("sleep_on").spawn(9)
    modal_server.wait_until(lambda: modal_server.dict_items("claims").get("sleeping"))
    cancelled_at = time.monotonic()
    call.cancel(terminate_containers=True)
    modal_server.wait_until(lambda: modal_server.tasks()[0].ended_at)
    assert time.monotonic() - cancelled_at < 0.5 + 1.0
    assert modal_server.tasks()[0].exit_code == 137
    with pytest.raises(modal.exception.RemoteError):
        call.get(timeout=5)
    assert len(modal_server.tasks()) == 1


def test_a_preempted_container_hears_sigint_and_its_input_starts_again(small: Small, modal_server: ModalServer) -> None:
    call = small("wait").spawn(0.7, "preempted")
    task = modal_server.wait_until(lambda: modal_server.tasks("wait") and modal_server.tasks("wait")[0])
    modal_server.wait_until(lambda: modal_server.dict_items("claims").get(("started", "preempted")))
    modal_server.preempt(task.id)
    assert call.get(timeout=20) == "preempted"
    assert modal_server.dict_items("claims")["started", "preempted"] == 2
    assert len(set(modal_server.function_calls("wait")[0].tasks)) == 2
    assert modal_server.counts()["FunctionMap"] == 1


def test_a_killed_container_ends_with_137_and_its_input_starts_again(small: Small, modal_server: ModalServer) -> None:
    call = small("wait").spawn(0.5, "killed")
    modal_server.wait_until(lambda: modal_server.dict_items("claims").get(("started", "killed")))
    modal_server.kill(modal_server.tasks("wait")[0].id)
    assert call.get(timeout=20) == "killed"
    assert modal_server.tasks("wait")[0].exit_code == 137


@pytest.mark.slow
class TestCrashing:
    @pytest.fixture
    def modal_settings(self) -> Settings:
        return Settings(max_crashes=1)

    def test_an_input_that_kills_every_container_is_given_up_in_the_end(
        self, small: Small, modal_server: ModalServer
    ) -> None:
        with pytest.raises(modal.exception.InternalFailure):
            small("die").spawn(137).get(timeout=20)
        assert [task.exit_code for task in modal_server.tasks("die")] == [137, 137]


def test_an_import_error_is_what_the_caller_gets(
    fresh_app: Callable[[str], object], modal_server: ModalServer, client: modal.Client, tmp_path, monkeypatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "broken_app.py").write_text(
        "import modal, os\n"
        "app = modal.App('broken')\n"
        "if os.environ.get('MODAL_IS_REMOTE'): import not_installed_there\n"
        "@app.function()\n"
        "def f() -> None: ...\n"
    )
    fresh_app("broken_app").app.deploy(client=client)  # type: ignore[attr-defined]
    with pytest.raises(ModuleNotFoundError, match="not_installed_there"):
        modal.Function.from_name("broken", "f", client=client).spawn().get(timeout=20)
    assert len(modal_server.tasks()) == modal_server.settings.start_attempts


def test_stopping_the_server_leaves_no_process_and_no_file(small: Small, modal_server: ModalServer) -> None:
    small("wait").spawn(30, "left")
    modal_server.wait_until(lambda: modal_server.dict_items("claims").get(("started", "left")))
    modal_server.stop()
    assert not modal_server.folder.exists()
    running = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline")]
    assert not [command for command in running if str(modal_server.folder).encode() in command]
