from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import modal
import pytest

from tests.modal_server import ModalServer, Settings
from tests.modal_server.deployed import Small


def test_a_deployed_function_runs_in_a_real_container(shared: Small) -> None:
    assert shared("add").remote(2, right=3) == 5
    assert {(task.function, task.gpu) for task in shared.server.tasks("add")} == {("add", "")}
    assert not shared.server.unknown_calls()


def test_a_container_sees_its_sources_its_image_and_nothing_else_of_this_machine(shared: Small) -> None:
    seen = shared("describe").remote()
    environment = seen["environment"]
    assert environment["FLAVOUR"] == "plain"
    assert environment["MODAL_TASK_ID"] == shared.server.tasks("describe")[-1].id
    assert "MODAL_TOKEN_ID" not in environment
    assert "PYTEST_CURRENT_TEST" not in environment
    if shared.server.settings.mounts:
        assert seen["cwd"] == "/root"
        assert "small_app.py" in seen["home"]
        own = Path(sys.prefix).parts  # the checkout of these tests may itself be a temporary folder
        assert set(seen["tmp"]) <= ({own[2]} if own[1] == "tmp" else set())
        assert "modal_app" not in seen["repository"]


def test_a_poll_says_not_ready_until_the_result_is_there_and_then_again_and_again(shared: Small) -> None:
    call = shared("wait").spawn(0.5, "here")
    again = modal.FunctionCall.from_id(call.object_id, client=shared.client)
    with pytest.raises(TimeoutError):
        again.get(timeout=0)
    assert again.get(timeout=20) == "here"
    assert again.get(timeout=0) == "here"
    shared.server.expire(call.object_id)
    with pytest.raises(modal.exception.OutputExpiredError):
        again.get(timeout=0)


def test_inputs_of_a_map_share_the_containers_that_the_function_allows(shared: Small) -> None:
    two = shared("add").with_options(max_containers=2)
    assert sorted(two.map(range(7))) == [1, 2, 3, 4, 5, 6, 7]
    call = shared.server.function_calls("add")[-1]
    assert 1 <= len(set(call.tasks)) <= 2


def test_every_set_of_options_is_a_pool_of_its_own(shared: Small) -> None:
    wait = shared("wait")
    one_gpu = wait.with_options(gpu="A100-80GB:2", max_containers=1)
    other_gpu = wait.with_options(gpu="H100", max_containers=1)
    calls = [variant.spawn(0.2, str(number)) for variant in (one_gpu, other_gpu) for number in range(2)]
    assert [call.get(timeout=20) for call in calls] == ["0", "1", "0", "1"]
    tasks = {task for call in calls for task in shared.server.tasks_of(call.object_id)}
    assert sorted(task.gpu for task in tasks) == ["A100-80GB:2", "H100"]
    ids = [call.object_id for call in calls]
    gpus = [call.gpu for call in shared.server.function_calls("wait") if call.id in ids]
    assert gpus == ["A100-80GB:2"] * 2 + ["H100"] * 2


def test_a_fallback_list_moves_on_when_a_gpu_is_not_to_be_had(shared: Small) -> None:
    shared.server.set_full_gpus("H100:2")
    assert shared("ranked").remote() == "ran"
    assert [task.gpu for task in shared.server.tasks("ranked")] == ["A100-80GB:2"]


def test_a_function_starts_others_from_inside_and_leaves(shared: Small) -> None:
    ids = shared("spawn_next").remote(3)
    results = [modal.FunctionCall.from_id(one, client=shared.client).get(timeout=20) for one in ids]
    assert results == ["next-0", "next-1", "next-2"]
    parent = shared.server.tasks("spawn_next")[0].id
    assert len(shared.server.calls("FunctionMap", caller=parent)) == 3
    assert {task.gpu for one in ids for task in shared.server.tasks_of(one)} == {"H100:2"}
    assert all(call.parent_input_id for call in shared.server.function_calls("wait") if call.id in ids)


def test_the_exception_of_a_container_arrives_with_its_type(shared: Small) -> None:
    with pytest.raises(TypeError, match="can only concatenate str"):
        shared("add").remote("x")


def test_a_spawned_call_is_retried_by_the_server(shared: Small) -> None:
    assert shared("fail_before").spawn("spawned", 3).get(timeout=20) == 3
    assert shared.server.counts()["FunctionRetryInputs"] == 0
    assert len(shared.server.function_calls("fail_before")[0].tasks) == 3
    with pytest.raises(ValueError, match="try 3"):
        shared("fail_before").spawn("in vain", 9).get(timeout=20)


@pytest.mark.slow
def test_a_call_that_is_waited_for_is_retried_by_the_client(small: Small) -> None:
    with pytest.raises(ValueError, match="try 3"):
        small("fail_before").remote("waited", 9)
    assert small.server.counts()["FunctionRetryInputs"] == 2


def test_arguments_and_results_of_any_size_arrive(shared: Small) -> None:
    inline, too_large = "x" * 5_000, "y" * 3_000_000
    shared.server.forget_calls()
    assert shared("wait").spawn(0, inline).get(timeout=20) == inline
    assert shared.server.counts(None)["BlobCreate"] == 0
    assert shared("wait").spawn(0, too_large).get(timeout=20) == too_large
    assert shared.server.counts(None)["BlobCreate"] == 2


def test_a_generator_yields_across(shared: Small) -> None:
    assert list(shared("count_up").remote_gen(4)) == [0, 1, 2, 3]


def test_what_a_call_prints_is_found_by_its_id(shared: Small) -> None:
    for number, text in ((10, "adding 10 and 1\n"), (20, "adding 20 and 1\n")):
        call = shared("add").spawn(number)
        assert call.get(timeout=20) == number + 1
        shared.server.wait_until(partial(shared.server.log, call_id=call.object_id))
        found = modal.FunctionCall.from_id(call.object_id, client=shared.client)
        assert [entry.message for entry in found.logs.tail(50)] == [text]


@pytest.mark.slow
def test_a_call_is_followed_while_it_prints(shared: Small) -> None:
    call = shared("wait").spawn(1, "followed")
    found = modal.FunctionCall.from_id(call.object_id, client=shared.client)
    assert [entry.message for entry in found.logs.stream(timeout=10)] == ["waiting followed\n"]


class TestWithoutRoot:
    @pytest.fixture
    def modal_settings(self) -> Settings:
        return Settings(mounts=False)

    def test_plain_processes_run_what_needs_no_volume(self, small: Small) -> None:
        assert small("claim").remote("key") is True

    def test_a_function_with_a_volume_says_that_it_needs_root(self, small: Small, modal_server: ModalServer) -> None:
        with pytest.raises(modal.exception.RemoteError, match="see its logs"):
            small("read").remote("any", reload=False)
        assert "need root" in modal_server.log(function="read")
