"""The process that talks to W&B: what W&B refuses, or answers with an error, is one message and does no harm."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runner.errors import SweepError
from runner.wandb.call import call
from runner.wandb.history import MOST_ROWS, STEP, TRAIN_LOSS
from runner.wandb.messages import (
    AmendRequest,
    LocalRun,
    ReadRequest,
    ReadResponse,
    SweepLocation,
    UploadRequest,
    UploadResponse,
)
from runner.wandb.process.here import problem_here
from tests.wandb_server import WandbServer, serve_wandb
from tests.wandb_server.records import HISTORY

pytestmark = pytest.mark.slow

ERROR = {"errors": [{"message": "out of order"}]}
FAILED = "It could not be read."
SWEEP = SweepLocation("rates-1a2b3c", "sweep:rates-1a2b3c", "p", "")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    with serve_wandb() as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        yield server
        assert not server.world.unknown


def read() -> ReadResponse:
    return call(ReadRequest((SWEEP,)), ReadResponse, failed=FAILED, advice="Read it here.", timeout_s=60)


def test_an_error_after_the_sign_in_is_one_message_with_the_address(server: WandbServer) -> None:
    server.world.instead["Runs"] = ERROR
    with pytest.raises(SweepError, match=rf"^W&B does not answer at {server.url} \(.*out of order\). Read it here\.$"):
        read()


def test_a_key_that_nothing_reads_is_refused(server: WandbServer) -> None:
    server.world.instead["GetViewer"] = {"data": {"viewer": None}}
    with pytest.raises(SweepError, match=r"Is the key right\? `wandb login --relogin`"):
        read()


def test_an_answer_of_another_type_is_one_message_that_names_the_field(server: WandbServer) -> None:
    run, _ = server.world.upsert({"project": "p", "name": "one", "groupName": SWEEP.sweep})
    run.state = {"value": "finished"}  # type: ignore[assignment]
    with pytest.raises(SweepError, match=r"^W&B gave an unexpected answer: \S*state: .+ Read it here\.$"):
        read()


def test_a_run_that_wandb_does_not_show_is_not_taken_for_a_missing_one(server: WandbServer, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "attempt": 1, "loss": 2.0}\n')
    run = LocalRun("key", str(tmp_path), "one", "p", "", "group", "name", (), (), {}, {}, finished=True)
    server.world.instead["Run"] = ERROR
    (result,) = upload(run)
    assert (result.failed, result.text) == (True, "W&B: input: out of order; the next sync tries again")
    assert not server.runs("p"), "nothing was logged"

    del server.world.instead["Run"]
    assert [(result.failed, result.text) for result in upload(run)] == [(False, "1 of 1 rows added from metrics.jsonl")]
    assert server.runs("p")["one"].values("train/loss") == {1: 2.0}


def test_rows_of_which_wandb_returns_only_a_sample_are_not_added_again(server: WandbServer, tmp_path: Path) -> None:
    """W&B has some steps twice, since the run was resumed."""
    steps = range(1, MOST_ROWS)
    (tmp_path / "metrics.jsonl").write_text("".join(f'{{"step": {step}, "loss": 2.0}}\n' for step in steps))
    there, _ = server.world.upsert({"project": "p", "name": "one"})
    logged = [{STEP: step, TRAIN_LOSS: 2.0, "_step": at} for at, step in enumerate((1, 2, *steps))]
    there.lines[HISTORY] = [json.dumps(row) for row in logged]
    run = LocalRun("key", str(tmp_path), "one", "p", "", "group", "name", (), (), {}, {}, finished=False)
    (result,) = upload(run)
    assert result.text == f"{MOST_ROWS} rows or more: not compared with metrics.jsonl"
    assert len(there.history) == len(logged)


def test_a_verdict_that_does_not_hold_any_more_is_removed_and_one_of_another_sweep_stays(
    server: WandbServer, tmp_path: Path
) -> None:
    locals_, judged = [], {"verdict/sweep": "rates-1", "verdict/low": -0.1, "dollars": 2.0}
    for name, sweep in (("one", "rates-1"), ("two", "rates-2")):
        run, _ = server.world.upsert({"project": "p", "name": name})
        run.summary = dict(judged)
        locals_.append(
            LocalRun(name, str(tmp_path), name, "p", "", "g", name, (), (), {}, {}, finished=True, unjudged_in=sweep)
        )
    results = call(AmendRequest(tuple(locals_)), UploadResponse, failed=FAILED, timeout_s=60).results
    assert [one.text for one in results] == ["verdict removed, since the run is not judged any more", "up to date"]
    assert [server.runs("p")[name].summary for name in ("one", "two")] == [{"dollars": 2.0}, judged]


def test_an_error_of_a_file_of_this_machine_is_not_taken_for_a_silent_wandb(
    server: WandbServer, tmp_path: Path
) -> None:
    part = tmp_path / "wandb" / "offline-run-1-one" / "run-one.wandb"
    part.mkdir(parents=True)
    run = LocalRun("key", str(tmp_path), "one", "p", "", "group", "name", (), (), {}, {}, finished=True)
    with pytest.raises(SweepError) as caught:
        upload(run)
    assert str(caught.value) == f"{part}: Is a directory."


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device. Free some space: `axosweep gc`"),
        (PermissionError(errno.EACCES, "Permission denied", "/a/b"), "/a/b: Permission denied."),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), ""),
        (TimeoutError("timed out"), ""),
        (ValueError("/a/b"), ""),
    ],
)
def test_errors_of_a_disk_and_of_a_file_are_distinguished_from_those_of_a_connection(
    error: Exception, says: str
) -> None:
    found = problem_here(error)
    assert found.startswith(says) if says else not found


def upload(run: LocalRun) -> Any:
    return call(UploadRequest((run,)), UploadResponse, failed=FAILED, timeout_s=60).results
