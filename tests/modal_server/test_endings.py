from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import modal
import pytest

from tests.modal_server import ModalServer, Settings
from tests.modal_server.deployed import Small


def signals(server: ModalServer) -> list[str]:
    """The events that the code in containers recorded."""
    return list(server.dict_items("claims").get("signals", []))


def started(server: ModalServer, tag: str) -> int:
    """How often `wait` began with that tag."""
    return int(server.dict_items("claims").get(("started", tag), 0))


@pytest.mark.parametrize(
    ("stubborn", "heard"),
    [
        (0, ["InputCancellation"]),
        pytest.param(1, ["InputCancellation", "KeyboardInterrupt"], marks=pytest.mark.slow),
    ],
)
def test_a_timeout_cancels_and_then_interrupts(shared: Small, stubborn: int, heard: list[str]) -> None:
    with pytest.raises(modal.exception.FunctionTimeoutError):
        shared("outlast").spawn(stubborn).get(timeout=20)
    assert signals(shared.server) == heard


@pytest.mark.slow
def test_who_ignores_all_signals_is_killed(shared: Small) -> None:
    call = shared("outlast").spawn(9)
    with pytest.raises(modal.exception.FunctionTimeoutError):
        call.get(timeout=20)
    assert signals(shared.server) == ["InputCancellation", "KeyboardInterrupt"]
    shared.server.wait_until(lambda: shared.server.tasks_of(call.object_id)[0].exit_code == 137)


@pytest.mark.slow
def test_a_timed_out_call_is_retried_as_often_as_its_policy_says(shared: Small) -> None:
    with pytest.raises(modal.exception.FunctionTimeoutError):
        shared("outlast").with_options(retries=1).spawn(0).get(timeout=20)
    assert signals(shared.server) == ["InputCancellation"] * 2


def test_cancelling_ends_what_runs_and_what_waits(shared: Small) -> None:
    alone = shared("sleep_on").with_options(max_containers=1)
    running, waiting = alone.spawn(0), alone.spawn(0)
    shared.server.wait_until(lambda: shared.server.dict_items("claims").get("sleeping"))
    for call in (waiting, running):
        modal.FunctionCall.from_id(call.object_id, client=shared.client).cancel()
        with pytest.raises(modal.exception.RemoteError):
            call.get(timeout=5)
    shared.server.wait_until(lambda: signals(shared.server) == ["InputCancellation"])
    ours = (running.object_id, waiting.object_id)
    assert [call.status for call in shared.server.function_calls("sleep_on") if call.id in ours] == ["terminated"] * 2
    assert shared.server.tasks_of(running.object_id)[0].ended_at == 0
    assert not shared.server.tasks_of(waiting.object_id)


def test_cancelling_with_the_containers_ends_them_within_the_grace_time(shared: Small) -> None:
    call = shared("sleep_on").spawn(9)
    shared.server.wait_until(lambda: shared.server.dict_items("claims").get("sleeping"))
    cancelled_at = time.monotonic()
    call.cancel(terminate_containers=True)
    shared.server.wait_until(lambda: shared.server.tasks_of(call.object_id)[0].ended_at)
    assert time.monotonic() - cancelled_at < 6.0, "long before the nine seconds are over"
    assert [task.exit_code for task in shared.server.tasks_of(call.object_id)] == [137]
    with pytest.raises(modal.exception.RemoteError):
        call.get(timeout=5)


def test_a_preempted_container_hears_sigint_and_its_input_starts_again(shared: Small) -> None:
    call = shared("wait").spawn(2, "preempted")
    shared.server.wait_until(lambda: started(shared.server, "preempted"))
    shared.server.preempt(shared.server.tasks_of(call.object_id)[0].id)
    assert call.get(timeout=20) == "preempted"
    assert started(shared.server, "preempted") == 2
    assert len({task.id for task in shared.server.tasks_of(call.object_id)}) == 2
    assert shared.server.counts()["FunctionMap"] == 1


def test_a_killed_container_ends_with_137_and_its_input_starts_again(shared: Small) -> None:
    call = shared("wait").spawn(2, "killed")
    shared.server.wait_until(lambda: started(shared.server, "killed"))
    shared.server.kill(shared.server.tasks_of(call.object_id)[0].id)
    assert call.get(timeout=20) == "killed"
    assert shared.server.tasks_of(call.object_id)[0].exit_code == 137


@pytest.mark.slow
class TestCrashing:
    @pytest.fixture
    def modal_settings(self) -> Settings:
        return Settings(max_crashes=1)

    def test_an_input_that_kills_every_container_is_given_up_in_the_end(self, small: Small) -> None:
        with pytest.raises(modal.exception.InternalFailure):
            small("die").spawn(137).get(timeout=20)
        assert [task.exit_code for task in small.server.tasks("die")] == [137, 137]


def test_an_import_error_is_what_the_caller_gets(
    fresh_app: Callable[[str], ModuleType], modal_server: ModalServer, modal_client: modal.Client
) -> None:
    fresh_app("broken_app").app.deploy(client=modal_client)
    with pytest.raises(ModuleNotFoundError, match="not_installed_there"):
        modal.Function.from_name("broken", "f", client=modal_client).spawn().get(timeout=20)
    assert len(modal_server.tasks()) == modal_server.settings.start_attempts


def test_stopping_the_server_leaves_no_process_and_no_file(small: Small) -> None:
    small("wait").spawn(30, "left")
    small.server.wait_until(lambda: started(small.server, "left"))
    small.server.stop()
    assert not small.server.folder.exists()
    running = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline")]
    assert not [command for command in running if str(small.server.folder).encode() in command]
