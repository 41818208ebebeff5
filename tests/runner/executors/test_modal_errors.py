"""The messages about Modal's refusals."""

from __future__ import annotations

import modal.exception
import pytest
from grpclib.exceptions import StreamTerminatedError

from runner.errors import SweepError
from runner.executors.modal_errors import explained

MISSING = "Token missing. Could not authenticate client. If you are a new user, then run `modal token new`."


@pytest.mark.parametrize("said", [MISSING, "Token is wrong", "Token is wrong."])
def test_the_way_to_a_token_is_said_once(said: str) -> None:
    with pytest.raises(SweepError) as refused, explained():
        raise modal.exception.AuthError(said)
    text = str(refused.value)
    assert text.startswith(f"Modal refused the login: {said.rstrip('.')}.")
    assert text.count("modal token new") == 1
    assert ".." not in text


@pytest.mark.parametrize(
    "error", [modal.exception.ServiceError("no answer"), StreamTerminatedError("Connection lost")], ids=repr
)
def test_a_service_that_does_not_answer_is_reported_in_one_message(error: Exception) -> None:
    with pytest.raises(SweepError, match=r"Modal cannot be reached \(.*(no answer|Connection lost)\)"), explained():
        raise error
