"""What decides on Modal whether somebody works on a step, asked of the local Modal by the unmodified client."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from grpclib import Status

from tests.modal_server import ModalServer

ASK = """
from modal_app.claims import is_live
try:
    print(is_live("fc-" + "a" * 22))
except Exception as error:
    print(type(error).__name__)
"""

COME_BACK = """
import modal
from modal_app.claims import claim, last_claim
from modal_app.remote import Job
first, second = "fc-" + "a" * 22, "fc-" + "b" * 22
claims = modal.Dict.from_name("claims", create_if_missing=True)
job = Job(name="train/run", sweep="s", app="app", function="train", claims="claims", cache_volume="c", runs_volume="r")
for key, call in ((job.name, first), (f"{job.name}/after/{first}", second)):
    claims.put(key, {"call": call, "sweep": "s"})
print(claim(claims, job, first) == second, last_claim(claims.get, job.name)[1] == second)
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
