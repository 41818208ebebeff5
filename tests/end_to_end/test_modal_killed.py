"""executor=modal with clients that are killed at any moment, or run two at a time. The worker in the containers does
nothing: the tests look at the calls."""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from grpclib import GRPCError, Status

from modal_app.store.layout import Store
from runner.store.ledger import Event
from tests.end_to_end.axosweep import Axosweep, kill
from tests.end_to_end.on_modal import ON_GPUS, attempts, beside, calls_since, finish, local_modal, recorded, statuses
from tests.modal_server import ModalServer, Settings
from tests.modal_server.fixture import needs_mounts, noop_settings
from tests.modal_server.record import CLIENT

pytestmark = [pytest.mark.slow, needs_mounts]


@dataclass(frozen=True)
class Moment:
    """The client's nth call of a name: before it has any effect, or after its effect and before its answer."""

    name: str
    nth: int = 1
    after: bool = False

    def __str__(self) -> str:
        return f"{'after' if self.after else 'at'}-{self.name}-{self.nth}"


@pytest.fixture
def settings() -> Settings:
    return noop_settings()


@pytest.fixture
def server(settings: Settings) -> Iterator[ModalServer]:
    with local_modal(settings) as server:
        yield server


@pytest.fixture(scope="module")
def shared() -> Iterator[ModalServer]:
    """A place for tests with datasets and runs of their own. A dataset takes longer than repeating a command line."""
    with local_modal(noop_settings(preprocess_s=1.5)) as server:
        yield server


def start_to_die(on_modal: Axosweep, server: ModalServer, moment: Moment, *words: str) -> None:
    """Launch, and kill the client with -9 at that moment."""
    client: list[subprocess.Popen[str]] = []

    def killing() -> None:
        kill(client[0].pid)
        if not moment.after:
            raise GRPCError(Status.CANCELLED, "the client died before it had said this")

    server.act(moment.name, killing, nth=moment.nth, after=moment.after, caller=CLIENT)
    client.append(on_modal.start(*words))
    said, _ = client[0].communicate(timeout=60)
    assert client[0].returncode == -9, said


BEFORE_ANY_CALL = (
    Moment("FunctionGet"),  # nothing exists yet
    Moment("ImageGetOrCreate", 2),
    Moment("AppPublish"),
    Moment("VolumePutFiles2"),
    Moment("VolumePutFiles2", 2),  # the plan's bytes are uploaded, the files do not exist
    Moment("VolumePutFiles2", 2, after=True),
    Moment("VolumePutFiles2", 3),  # the same of the first input
    Moment("DictContents"),  # everything is uploaded, nothing is called
    Moment("FunctionMap"),  # the intent to call is in the ledger
)


def test_a_client_killed_again_and_again_before_it_calls_anything_loses_nothing(
    on_modal: Axosweep, server: ModalServer
) -> None:
    words = ("-m", "sequence_len=64,128", *ON_GPUS)
    for moment in BEFORE_ANY_CALL:
        start_to_die(on_modal, server, moment, *words)
    assert not server.function_calls()
    assert (recorded(on_modal, Event.SUBMITTED), recorded(on_modal, Event.STARTED)) == (1, 0), "an intent before a call"
    assert finish(on_modal, *words) == {"succeeded": 2}
    assert attempts(server, on_modal) == [1] * 4
    assert calls_since(server, 0.0) == {"preprocess": 2, "train": 2}


WHILE_CALLING = [
    Moment("FunctionMap", after=True),  # called, but no process knows the id: only the call itself can claim its job
    Moment("DictUpdate", after=True),  # claimed, and not in the ledger
    Moment("FunctionMap", 2),
    Moment("FunctionMap", 2, after=True),
    Moment("DictUpdate", 2, after=True),
]


@pytest.mark.parametrize("moment", WHILE_CALLING, ids=str)
def test_the_line_of_a_client_killed_while_it_calls_submits_what_is_missing(
    alone: Axosweep, shared: ModalServer, moment: Moment
) -> None:
    on_modal = beside(alone, shared, alone.store)
    lengths = 200 + 8 * WHILE_CALLING.index(moment)
    words = ("-m", f"sequence_len={lengths},{lengths + 4}", *ON_GPUS)
    started = time.time()
    start_to_die(on_modal, shared, moment, *words)
    assert finish(on_modal, *words) == {"succeeded": 2}
    assert attempts(shared, on_modal) == [1] * 4
    called = calls_since(shared, started)
    assert called["train"] == 2, "no GPU is rented for nothing"
    assert called["preprocess"] <= 2 + moment.after, "on a busy machine it may make one more call before it is killed"
    assert recorded(on_modal, Event.SUBMITTED) >= called["preprocess"], "an intent before each call"
    assert recorded(on_modal, Event.STARTED) >= called["preprocess"] - 1, "an id after each call, but for the last one"


class TestManyRuns:
    """With one container, which is busy: the calls wait in the queue, and the test looks at what the client does."""

    @pytest.fixture
    def settings(self) -> Settings:
        return noop_settings(max_containers=1, train_s=120.0)

    def test_64_runs_take_two_client_calls_each_and_their_line_once_more_makes_none(
        self, on_modal: Axosweep, server: ModalServer
    ) -> None:
        """Requests from the first call to the last id; three a run would be enough. Uploads and the deployment come
        before."""
        busy = on_modal.start("learning_rate=1e-3", *ON_GPUS)
        server.wait_until(lambda: server.function_calls("train"), 30)
        kill(busy.pid)
        busy.communicate()
        before, started = recorded(on_modal, Event.STARTED), time.time()
        rates = ",".join(f"{number}e-5" for number in range(1, 65))
        words = ("-m", f"learning_rate={rates}", *ON_GPUS)
        client = on_modal.start(*words)
        server.wait_until(lambda: recorded(on_modal, Event.STARTED) == before + 64, 60)
        kill(client.pid)
        client.communicate()
        calls = [call for call in server.calls(caller=CLIENT) if call.at >= started]
        ours = [index for index, call in enumerate(calls) if call.name in ("FunctionMap", "DictUpdate")]
        names = Counter(call.name for call in calls[min(ours) : max(ours) + 1])
        assert names == {"FunctionMap": 64, "DictUpdate": 64}
        assert names.total() <= 3 * 64

        again = on_modal.start(*words)
        server.wait_until(lambda: recorded(on_modal, Event.FOLLOWED) == 64, 60)
        kill(again.pid)
        again.communicate()
        assert calls_since(server, started) == {"train": 64}


def test_two_clients_at_the_same_moment_prepare_and_train_everything_once(
    on_modal: Axosweep, server: ModalServer, tmp_path: Path
) -> None:
    other = beside(on_modal, server, Store(tmp_path / "other"))
    finish(on_modal, "sequence_len=200", *ON_GPUS)  # deploys, so that the race is about the calls
    released = [server.hold("DictContents", nth=nth) for nth in (1, 2)]
    clients = [
        on_modal.start("-m", "lora=r4,r8", *ON_GPUS),
        other.start("-m", "lora=r8,r16", *ON_GPUS),
    ]
    server.wait_until(lambda: server.counts()["DictContents"] >= 2 + 4, 30)
    for release in released:
        release()
    said = [client.communicate(timeout=120)[0] for client in clients]
    assert [client.returncode for client in clients] == [0, 0], said
    assert attempts(server, on_modal) == [1] * 5
    assert attempts(server, other) == [1] * 3


@pytest.mark.parametrize(
    ("moment", "dies"),
    [
        pytest.param(Moment("DictContents"), False, id="before it has read the claims"),
        pytest.param(Moment("FunctionGetOutputs", after=True), False, id="when it knows that the call is live"),
        pytest.param(Moment("FunctionGetOutputs", after=True), True, id="without having finished"),
    ],
)
def test_a_run_that_ends_while_its_line_is_given_once_more_is_called_again_only_if_it_has_not_finished(
    alone: Axosweep, tmp_path: Path, moment: Moment, dies: bool
) -> None:
    """It ends at that moment of the second client."""
    over = tmp_path / "until" / "over"
    over.parent.mkdir()
    with local_modal(noop_settings(until={"train": over}, max_crashes=0)) as server:
        on_modal = beside(alone, server, alone.store)
        first = on_modal.start("lora=r8", *ON_GPUS)
        server.wait_until(lambda: recorded(on_modal, Event.STARTED) and server.function_calls("train"), 60)
        kill(first.pid)
        first.communicate()
        release = server.hold(moment.name, after=moment.after)
        seen = server.counts()[moment.name]
        second = on_modal.start("lora=r8", *ON_GPUS)
        server.wait_until(lambda: server.counts()[moment.name] > seen, 60)
        if dies:
            server.kill(server.wait_until(lambda: server.function_calls("train")[0].tasks)[0])
        else:
            over.touch()
        server.wait_until(lambda: server.function_calls("train")[0].status not in ("pending", "running"), 60)
        over.touch()
        release()
        said, _ = second.communicate(timeout=60)
        assert second.returncode == 0, said
        assert calls_since(server, 0.0) == {"preprocess": 1, "train": 1 + dies}
        assert statuses(on_modal) == {"succeeded": 1}
