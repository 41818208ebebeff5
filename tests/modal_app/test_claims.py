"""What decides on Modal whether a call works on a step, tested with the local Modal and the unmodified client."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from grpclib import Status

from modal_app.cloud.job import Job
from tests.fork_server import ForkServer, fork_server
from tests.modal_server import ModalServer, Settings

RUN, OTHER = "train/run", "train/other"
SCRIPT = Path(__file__).with_name("claims_script.py")
Answer = Callable[[ModalServer, str], str]


@pytest.fixture(scope="module")
def forks() -> Iterator[ForkServer]:
    with fork_server("modal", "tests.modal_app.claims_script") as forks:
        yield forks


@pytest.fixture
def answer(forks: ForkServer) -> Answer:
    """What a process prints that runs this case of claims_script.py."""

    def of(server: ModalServer, case: str) -> str:
        done = forks.run(SCRIPT, case, environment=os.environ | server.environment(), timeout_s=30)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return of


def test_a_call_that_modal_does_not_know_is_not_live(answer: Answer) -> None:
    with ModalServer() as server:
        assert answer(server, "ask_of_an_unknown_call") == "False"


@pytest.mark.parametrize("status", [Status.RESOURCE_EXHAUSTED, Status.PERMISSION_DENIED])
def test_a_request_that_modal_does_not_answer_does_not_mean_a_dead_call(answer: Answer, status: Status) -> None:
    """Otherwise, a second trainer would be started next to the one whose call gave no answer."""
    with ModalServer() as server:
        server.fail("FunctionGetOutputs", status=status)
        assert answer(server, "ask_of_an_unknown_call") in ("ResourceExhaustedError", "PermissionDeniedError")


def test_a_request_whose_connection_is_lost_each_time_does_not_mean_a_dead_call(answer: Answer) -> None:
    with ModalServer() as server:
        for nth in range(1, 5):  # the client tries four times
            server.lose_connection("FunctionGetOutputs", nth=nth)
        assert answer(server, "ask_of_an_unknown_call") == "ConnectionError"


def test_a_call_that_was_followed_and_comes_back_leaves_the_job_alone_even_if_its_follower_is_over(
    answer: Answer,
) -> None:
    """Otherwise, the two would follow each other in a circle, and the search for the last claim would never end."""
    with ModalServer() as server:
        assert answer(server, "come_back") == "True True"


def test_a_call_that_has_ended_is_no_reason_to_start_again_what_it_has_started(answer: Answer) -> None:
    """Otherwise, a call that has copied the claims before would rent a GPU for a moment."""
    with ModalServer() as server:
        assert answer(server, "start_after_a_starter_that_has_ended").split() == ["True", "True", "True", "False"]


@pytest.fixture
def idle() -> Iterator[ModalServer]:
    """A server whose calls wait for a container that never starts."""
    with ModalServer(Settings(max_containers=0)) as server:
        yield server


def test_a_call_claims_its_job_before_it_has_a_container_and_the_next_one_leaves_it_alone(
    answer: Answer, idle: ModalServer
) -> None:
    assert answer(idle, "claim_of_a_waiting_call").split() == ["True", "True", "False", "fc-second", "fc-second"]


def test_of_two_complete_drafts_the_first_that_is_chosen_is_published_unless_it_is_removed(
    answer: Answer, idle: ModalServer
) -> None:
    assert answer(idle, "choose_twice").split() == ["2", "2", "1", "1"]


def test_a_call_that_has_said_how_its_job_ended_is_followed_though_it_still_lives(
    answer: Answer, idle: ModalServer
) -> None:
    """It is starting what waits, and a new request for the job is a request for another try."""
    assert answer(idle, "follow_an_ended_job").split() == ["True", "True", "fc-second", "failed", "None"]


def test_a_waiting_job_is_started_once_whichever_call_has_added_it(answer: Answer, idle: ModalServer) -> None:
    waited = answer(idle, "start_what_waits").split()
    assert waited == ["preprocess/data", "train/other", "train/run"]
    assert [(call.function, call.gpu) for call in idle.function_calls()] == [
        ("preprocess", ""), ("train", ""), ("train", "H100:2"),
    ]  # fmt: skip


def test_a_job_that_waits_in_several_sweeps_is_called_for_each_in_which_something_waits_for_it(
    answer: Answer, idle: ModalServer
) -> None:
    """Each call starts what waits for the job in its own sweep: another sweep's runs would never start."""
    assert answer(idle, "start_for_three_sweeps") == ""
    jobs = [Job.from_json(idle.argument(call.id)) for call in idle.function_calls()]
    assert sorted((job.name, job.sweep) for job in jobs) == [
        ("preprocess/data", "s"), ("preprocess/data", "t"), ("preprocess/data", "u"), ("train/run", "s"),
    ]  # fmt: skip


def test_what_waits_for_a_call_that_has_handed_its_job_on_is_started_by_the_last_one(
    answer: Answer, idle: ModalServer
) -> None:
    """A merge that waits for a run that reached a time limit and went on in another call."""
    assert answer(idle, "continue_and_start_what_waits").split() == ["train/other"]


def test_nothing_is_started_after_a_failure_nor_what_was_cancelled(answer: Answer, idle: ModalServer) -> None:
    assert answer(idle, "start_after_a_failure").split() == ["cancelled/train/run", "preprocess/data", "train/other"]


def test_what_modal_refuses_to_start_is_recorded_with_its_cause_the_rest_is_started_and_the_next_try_makes_it_good(
    answer: Answer,
    idle: ModalServer,
) -> None:
    idle.fail("FunctionMap", nth=2, status=Status.RESOURCE_EXHAUSTED, message="too many inputs wait")
    refused, first, second = answer(idle, "start_what_is_refused_in_part").splitlines()
    assert refused == "refused"
    assert first.split()[:4] == ["preprocess/data", f"refused/{RUN}", OTHER, f"waiting/call/{RUN}"]
    assert first.endswith("Modal did not start it: too many inputs wait")
    assert second.split() == ["preprocess/data", OTHER, RUN, "None"]


def test_a_job_that_others_wait_for_is_called_even_if_another_call_works_on_it(
    answer: Answer, idle: ModalServer
) -> None:
    """Only the call itself can start the jobs of its sweep that wait for it."""
    answer(idle, "start_twice")
    assert Counter(call.function for call in idle.function_calls()) == {"preprocess": 2, "train": 1}


def test_a_job_that_is_handed_on_is_taken_though_who_had_it_still_lives(answer: Answer, idle: ModalServer) -> None:
    assert answer(idle, "continue_the_call").split() == ["True"] * 3


def test_a_function_is_found_once_and_bound_once_to_the_same_options(answer: Answer, idle: ModalServer) -> None:
    answer(idle, "call_five")
    counts = idle.counts()
    assert {name: counts[name] for name in ("FunctionGet", "FunctionBindParams", "FunctionMap")} == {
        "FunctionGet": 1, "FunctionBindParams": 1, "FunctionMap": 5,
    }  # fmt: skip
