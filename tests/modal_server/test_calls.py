from __future__ import annotations

from collections.abc import Callable

import modal
import pytest

from tests.modal_server import ModalServer, Settings

Small = Callable[[str], modal.Function]


def test_a_deployed_function_runs_in_a_real_container(small: Small, modal_server: ModalServer) -> None:
    assert small("add").remote(2, right=3) == 5
    assert [(task.function, task.gpu) for task in modal_server.tasks()] == [("add", "")]
    assert not modal_server.unknown_calls()


def test_a_container_sees_its_sources_its_image_and_nothing_else_of_this_machine(
    small: Small, modal_server: ModalServer
) -> None:
    seen = small("describe").remote()
    environment = seen["environment"]
    assert environment["FLAVOUR"] == "plain"
    assert environment["MODAL_TASK_ID"] == modal_server.tasks()[-1].id
    assert "MODAL_TOKEN_ID" not in environment
    assert "PYTEST_CURRENT_TEST" not in environment
    if modal_server.settings.mounts:
        assert seen["cwd"] == "/root"
        assert "small_app.py" in seen["home"]


def test_a_poll_says_not_ready_until_the_result_is_there_and_then_again_and_again(
    small: Small, modal_server: ModalServer, client: modal.Client
) -> None:
    call = small("wait").spawn(0.5, "here")
    again = modal.FunctionCall.from_id(call.object_id, client=client)
    with pytest.raises(TimeoutError):
        again.get(timeout=0)
    assert again.get(timeout=20) == "here"
    assert again.get(timeout=0) == "here"
    modal_server.expire(call.object_id)
    with pytest.raises(modal.exception.OutputExpiredError):
        again.get(timeout=0)


def test_inputs_of_a_map_share_the_containers_that_the_function_allows(small: Small, modal_server: ModalServer) -> None:
    two = small("add").with_options(max_containers=2)
    assert sorted(two.map(range(7))) == [1, 2, 3, 4, 5, 6, 7]
    assert 1 <= len(modal_server.tasks("add")) <= 2


def test_every_set_of_options_is_a_pool_of_its_own(small: Small, modal_server: ModalServer) -> None:
    wait = small("wait")
    one_gpu = wait.with_options(gpu="A100-80GB:2", max_containers=1)
    other_gpu = wait.with_options(gpu="H100", max_containers=1)
    calls = [variant.spawn(0.2, str(number)) for variant in (one_gpu, other_gpu) for number in range(2)]
    assert [call.get(timeout=20) for call in calls] == ["0", "1", "0", "1"]
    assert sorted(task.gpu for task in modal_server.tasks()) == ["A100-80GB:2", "H100"]
    assert modal_server.peak_gpus() <= 3
    assert [call.gpu for call in modal_server.function_calls("wait")] == ["A100-80GB:2"] * 2 + ["H100"] * 2


def test_a_fallback_list_moves_on_when_a_gpu_is_not_to_be_had(small: Small, modal_server: ModalServer) -> None:
    assert small("ranked").remote() == "ran"
    modal_server.set_full_gpus("H100:2")
    assert small("ranked").with_options(timeout=60).remote() == "ran"
    assert [task.gpu for task in modal_server.tasks()] == ["H100:2", "A100-80GB:2"]


def test_a_function_starts_others_from_inside_and_leaves(
    small: Small, modal_server: ModalServer, client: modal.Client
) -> None:
    ids = small("spawn_next").remote(3)
    results = [modal.FunctionCall.from_id(one, client=client).get(timeout=20) for one in ids]
    assert results == ["next-0", "next-1", "next-2"]
    parent = modal_server.tasks("spawn_next")[0].id
    assert len(modal_server.calls("FunctionMap", caller=parent)) == 3
    assert {task.gpu for task in modal_server.tasks("wait")} == {"H100:2"}
    assert all(call.parent_input_id for call in modal_server.function_calls("wait"))


def test_the_exception_of_a_container_arrives_with_its_type(small: Small) -> None:
    with pytest.raises(TypeError, match="can only concatenate str"):
        small("add").remote("x")


def test_a_spawned_call_is_retried_by_the_server_and_a_waiting_one_by_the_client(
    small: Small, modal_server: ModalServer
) -> None:
    call = small("fail_before").spawn(3)
    assert call.get(timeout=20) == 3
    assert modal_server.counts()["FunctionRetryInputs"] == 0
    assert len(modal_server.function_calls("fail_before")[0].tasks) == 3
    with pytest.raises(ValueError, match="try 4"):
        small("fail_before").with_options(retries=0).spawn(9).get(timeout=20)
    with pytest.raises(ValueError, match="try 7"):
        small("fail_before").remote(9)
    assert modal_server.counts()["FunctionRetryInputs"] == 2


def test_arguments_and_results_of_any_size_arrive(small: Small, modal_server: ModalServer) -> None:
    small_enough, too_large = "x" * 5_000, "y" * 3_000_000
    assert small("wait").spawn(0, small_enough).get(timeout=20) == small_enough
    assert modal_server.counts()["BlobCreate"] == 0
    assert small("wait").spawn(0, too_large).get(timeout=20) == too_large
    assert modal_server.counts()["BlobCreate"] == 1


def test_a_generator_yields_across(small: Small) -> None:
    assert list(small("count_up").remote_gen(4)) == [0, 1, 2, 3]


def test_what_a_call_prints_is_found_by_its_id(small: Small, modal_server: ModalServer, client: modal.Client) -> None:
    calls = [small("add").spawn(number) for number in (10, 20)]
    assert [call.get(timeout=20) for call in calls] == [11, 21]
    for call, text in zip(calls, ["adding 10 and 1\n", "adding 20 and 1\n"], strict=True):
        found = modal.FunctionCall.from_id(call.object_id, client=client)
        modal_server.wait_until(lambda call=call: modal_server.log(call_id=call.object_id))
        assert [entry.message for entry in found.logs.tail(50)] == [text]
        assert [entry.message for entry in found.logs.stream(timeout=5)] == [text]


class TestWithoutRoot:
    @pytest.fixture
    def modal_settings(self) -> Settings:
        return Settings(mounts=False)

    def test_plain_processes_run_what_needs_no_volume(self, small: Small, modal_server: ModalServer) -> None:
        assert small("add").remote(2) == 3
        assert small("claim").remote("key") is True

    def test_a_function_with_a_volume_says_that_it_needs_root(self, small: Small, modal_server: ModalServer) -> None:
        with pytest.raises(modal.exception.RemoteError, match="see its logs"):
            small("read").remote("any", reload=False)
        assert "need root" in modal_server.log(function="read")
