"""What decides on Modal whether somebody works on a step, asked of the local Modal by the unmodified client."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator

import pytest
from grpclib import Status

from tests.modal_server import ModalServer, Settings

ASK = """
from modal_app.cloud.claims import is_live
try:
    print(is_live("fc-" + "a" * 22))
except Exception as error:
    print(type(error).__name__)
"""

COME_BACK = """
import modal
from modal_app.cloud.claims import claim, last_claim
from modal_app.cloud.container import Job
first, second = "fc-" + "a" * 22, "fc-" + "b" * 22
claims = modal.Dict.from_name("claims", create_if_missing=True)
job = Job(name="train/run", sweep="s", app="app", function="train", claims="claims", cache_volume="c", runs_volume="r")
for key, call in ((job.name, first), (f"{job.name}/after/{first}", second)):
    claims.put(key, {"call": call, "sweep": "s"})
print(claim(claims, job, first) == second, last_claim(claims.get, job.name)[1] == second)
"""


PRELUDE = """
import modal
from modal_app.cloud.claims import *
from modal_app.cloud.container import Job
app = modal.App("app")
for name in ("train", "preprocess"):
    app.function(name=name, serialized=True)(lambda text: None)
app.deploy()
claims = modal.Dict.from_name("claims", create_if_missing=True)
caller = Caller(claims)

def job(name, **more):
    kind = name.partition("/")[0]
    names = dict(sweep="s", app="app", claims="claims", cache_volume="c", runs_volume="r")
    return Job(name=name, function=kind, **names, **more)

def call(one):
    return caller.call(one, last_claim(claims.get, one.name)[0])

def over(call):
    modal.FunctionCall.from_id(call).cancel()

data, run, other = job("preprocess/data", awaited=True), job("train/run"), job("train/other", options={"gpu": "H100:2"})
"""


def answer(server: ModalServer, question: str = ASK) -> str:
    environment = os.environ | server.environment()
    return subprocess.run(
        [sys.executable, "-c", question], env=environment, capture_output=True, text=True, check=True, timeout=30
    ).stdout.strip()


def test_a_call_that_modal_does_not_know_is_not_live() -> None:
    with ModalServer() as server:
        assert answer(server) == "False"


@pytest.mark.parametrize("status", [Status.RESOURCE_EXHAUSTED, Status.PERMISSION_DENIED])
def test_a_question_that_modal_does_not_answer_is_no_dead_call(status: Status) -> None:
    """Else a second trainer would be started beside the one that nobody could ask about."""
    with ModalServer() as server:
        server.fail("FunctionGetOutputs", status=status)
        assert answer(server) in ("ResourceExhaustedError", "PermissionDeniedError")


def test_a_call_that_was_followed_and_comes_back_leaves_the_job_alone_even_if_its_follower_is_over() -> None:
    """Else the two would follow each other in a circle, and whoever looks for the last claim would never find it."""
    with ModalServer() as server:
        assert answer(server, COME_BACK) == "True True"


@pytest.fixture
def idle() -> Iterator[ModalServer]:
    """What is called there waits for a container that never comes."""
    with ModalServer(Settings(max_containers=0)) as server:
        yield server


def test_a_call_claims_its_job_before_it_has_a_container_and_the_next_one_leaves_it_alone(idle: ModalServer) -> None:
    question = """
first = call(run)
print(is_at_work(claims.get, run.name, first), claim(claims, run, "fc-second") == first)
over(first)
print(is_at_work(claims.get, run.name, first), claim(claims, run, "fc-second"), claim(claims, run, first))
"""
    assert answer(idle, PRELUDE + question).split() == ["True", "True", "False", "fc-second", "fc-second"]


def test_a_call_that_has_said_how_its_job_ended_is_followed_though_it_still_lives(idle: ModalServer) -> None:
    """It is starting what waits, and whoever asks for the job again asks for another try."""
    question = """
first = call(data)
end(claims, data, first, "failed", "no rows")
print(is_live(first), is_starting(claims.get, data.name), claim(claims, data, "fc-second"))
print(enqueue_behind(claims, first, data.name, [run])["status"], enqueue_behind(claims, "fc-second", data.name, [run]))
"""
    assert answer(idle, PRELUDE + question).split() == ["True", "True", "fc-second", "failed", "None"]


def test_what_waits_is_started_once_whoever_has_put_it_down(idle: ModalServer) -> None:
    question = """
first = call(data)
enqueue_behind(claims, first, data.name, [run, other])
enqueue_behind(claims, first, data.name, [run])
start_waiting_jobs(claims, data.name, [run], "succeeded")
start_waiting_jobs(claims, data.name, [run], "succeeded")
print(*sorted(key for key in claims.keys()))
"""
    waited = answer(idle, PRELUDE + question).split()
    assert waited == ["preprocess/data", "train/other", "train/run"]
    assert [(call.function, call.gpu) for call in idle.function_calls()] == [
        ("preprocess", ""), ("train", ""), ("train", "H100:2"),
    ]  # fmt: skip


def test_what_waits_for_a_call_that_has_handed_its_job_on_is_started_by_the_last_one(idle: ModalServer) -> None:
    """A merge that waits for a run which came to a time limit and went on in another call."""
    question = """
first = call(run)
enqueue_behind(claims, first, run.name, [other])
continue_in_new_call(claims, run, first)
start_waiting_jobs(claims, run.name, [], "succeeded")
print(*sorted(key for key in claims.keys() if key.startswith(("waiting", other.name))))
"""
    assert answer(idle, PRELUDE + question).split() == ["train/other"]


def test_nothing_is_started_after_a_failure_nor_what_was_cancelled(idle: ModalServer) -> None:
    question = """
first = call(data)
enqueue_behind(claims, first, data.name, [run])
start_waiting_jobs(claims, data.name, [other], "failed")
claims.put("cancelled/train/run", 1.0)
start_waiting_jobs(claims, data.name, [run, other], "succeeded")
print(*sorted(key for key in claims.keys()))
"""
    assert answer(idle, PRELUDE + question).split() == ["cancelled/train/run", "preprocess/data", "train/other"]


def test_a_job_that_others_wait_for_is_called_whoever_works_on_it(idle: ModalServer) -> None:
    """Only the call itself can put down what waits for it in its sweep."""
    question = """
start_waiting_jobs(claims, "fetch/model", [data, run], "succeeded")
start_waiting_jobs(claims, "fetch/model", [data, run], "succeeded")
"""
    answer(idle, PRELUDE + question)
    assert Counter(call.function for call in idle.function_calls()) == {"preprocess": 2, "train": 1}


def test_a_job_that_is_handed_on_is_taken_though_who_had_it_still_lives(idle: ModalServer) -> None:
    question = """
first = call(run)
second = continue_in_new_call(claims, run, first)
print(last_claim(claims.get, run.name)[1] == second, claim(claims, run, first) == second)
claims.pop(f"{run.name}/after/{first}")  # as if the first had been killed before it could say so
print(claim(claims, replace(run, continues=first), second) == second)
"""
    assert answer(idle, PRELUDE + question).split() == ["True"] * 3


def test_a_function_is_found_once_and_bound_once_to_the_same_options(idle: ModalServer) -> None:
    answer(idle, PRELUDE + "for number in range(5): call(replace(other, name=f'train/{number}'))")
    counts = idle.counts()
    assert {name: counts[name] for name in ("FunctionGet", "FunctionBindParams", "FunctionMap")} == {
        "FunctionGet": 1, "FunctionBindParams": 1, "FunctionMap": 5,
    }  # fmt: skip
