from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import modal.exception
import pytest
from grpclib.exceptions import StreamTerminatedError
from grpclib.protocol import Connection

from modal_app.cloud import volumes


@dataclass
class Volume:
    """Stands in for one of Modal's Volumes, in a container: answers each commit with the next of these, then accepts
    all."""

    name: str
    refusals: list[Exception] = field(default_factory=list)
    committed: int = 0

    def commit(self) -> None:
        if self.refusals:
            raise self.refusals.pop(0)
        self.committed += 1


def mounted(*refusals: list[Exception]) -> Any:
    return [Volume(name, list(given)) for name, given in zip("ab", refusals, strict=True)]


NOW = (0.0, 0.0, 0.0)
OPEN_FILES = RuntimeError("there are open files preventing the operation")


def test_while_a_worker_has_files_open_on_one_volume_the_other_is_still_committed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    a, b = both = mounted([OPEN_FILES], [])
    volumes.commit_what_can_be(both)
    assert (a.committed, b.committed) == (0, 1)
    assert "a could not be committed now: there are open files" in capsys.readouterr().out, "nothing is hidden"


def lost_connection() -> AttributeError:
    """What grpclib raises for a request on a connection that it has just taken apart."""
    try:
        return object.__new__(Connection)._transport  # type: ignore[return-value]
    except AttributeError as error:
        return error


@pytest.mark.parametrize(
    "refusal",
    [
        OPEN_FILES,
        modal.exception.ServiceError("no answer"),
        StreamTerminatedError("Connection lost"),
        lost_connection(),
    ],
    ids=repr,
)
def test_a_refusal_is_not_the_last_word(refusal: Exception) -> None:
    a, b = both = mounted([refusal] * 3, [refusal])
    volumes.commit(both, NOW)
    assert (a.committed, b.committed) == (1, 1)


def test_a_permanent_refusal_prevents_the_marks_on_the_next_volume_and_is_not_an_error_of_modals() -> None:
    a, b = both = mounted([modal.exception.ServiceError("no answer")] * 4, [])
    with pytest.raises(volumes.VolumeError, match="a could not be committed: no answer") as raised:
        volumes.commit(both, NOW)
    assert (a.committed, b.committed) == (0, 0)
    assert not isinstance(raised.value, modal.exception.Error)
