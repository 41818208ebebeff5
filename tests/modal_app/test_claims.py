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


def answer(server: ModalServer) -> str:
    environment = os.environ | server.environment()
    return subprocess.run(
        [sys.executable, "-c", ASK], env=environment, capture_output=True, text=True, check=True
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
