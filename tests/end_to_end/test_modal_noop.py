"""executor=modal where the calls are what matters: the worker in the containers does nothing."""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from grpclib import GRPCError, Status

from modal_app.layout import Store
from runner.ledger import Event, Ledger, sweep_ids
from tests.end_to_end.axosweep import Axosweep, kill, wait_until
from tests.modal_server import ModalServer, Settings
from tests.modal_server.fixture import SECRET, needs_mounts, noop_settings
from tests.modal_server.record import CLIENT

pytestmark = [pytest.mark.slow, needs_mounts]

ON_GPUS = ("gpu=a100_80gb", "gpu.count=2", "tracking=disabled", "executor=modal", "--yes")
RUNS = "axosweep-runs"


@dataclass(frozen=True)
class Moment:
    """The client's nth call of a name: before it has any effect, or when it has had it but was not answered."""

    name: str
    nth: int = 1
    after: bool = False

    def __str__(self) -> str:
        return f"{'after' if self.after else 'at'}-{self.name}-{self.nth}"


def modal(settings: Settings) -> Iterator[ModalServer]:
    with ModalServer(settings) as server:
        server.set_secret("secrets-hf-wandb", SECRET)
        yield server


@pytest.fixture
def settings() -> Settings:
    return noop_settings()


@pytest.fixture
def server(settings: Settings) -> Iterator[ModalServer]:
    yield from modal(settings)


@pytest.fixture
def on_modal(axosweep: Axosweep, server: ModalServer) -> Axosweep:
    return beside(axosweep, server, axosweep.store)


@pytest.fixture(scope="module")
def shared() -> Iterator[ModalServer]:
    """For tests with datasets and runs of their own. A dataset takes longer than to give a line once more."""
    yield from modal(noop_settings(preprocess_s=1.5))


def beside(axosweep: Axosweep, server: ModalServer, store: Store) -> Axosweep:
    """The command on that server, with a store of its own."""
    return Axosweep(store, axosweep.folder, server.environment())


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


def finish(on_modal: Axosweep, *words: str) -> None:
    done = on_modal.run(*words)
    assert done.returncode == 0, done.stderr


def attempts(server: ModalServer, on_modal: Axosweep) -> list[int]:
    """Of every run and dataset that this store knows of, as the Volumes have them."""
    mirror = on_modal.store.root / "modal"
    runs = [server.volume_tree(RUNS) / "runs" / path.name for path in (mirror / "runs").iterdir()]
    data = [server.volume_tree("axosweep-cache") / "prepared" / path.name for path in mirror.glob("prepared/*.work")]
    return [len(list(folder.glob("attempt-*"))) for folder in (*runs, *data)]


def calls_since(server: ModalServer, started: float) -> Counter[str]:
    return Counter(call.function for call in server.function_calls() if call.created_at >= started)


def statuses(on_modal: Axosweep) -> Counter[str]:
    return Counter(row["status"] for row in on_modal.json("compare")["runs"])


def test_a_sweep_over_gpus_that_nobody_has_and_with_a_long_config_ends_in_its_table(
    on_modal: Axosweep, server: ModalServer
) -> None:
    long = ",".join(f"part{number}_proj" for number in range(1000))
    finish(on_modal, "-m", "lora=r8,r16", f"lora_target_modules=[{long}]", *ON_GPUS)
    assert Counter(call.gpu for call in server.function_calls()) == {"": 1, "A100-80GB:2": 2}
    assert statuses(on_modal) == {"succeeded": 2}
    sizes = [len(call.request.SerializeToString()) for call in server.calls("FunctionMap")]
    assert len(sizes) == 3
    assert max(sizes) < 8192 < len(long), "what is long goes over the Volume"


BEFORE_ANY_CALL = (
    Moment("FunctionGet"),  # nothing is there yet
    Moment("ImageGetOrCreate", 2),
    Moment("AppPublish"),
    Moment("VolumePutFiles2"),
    Moment("VolumePutFiles2", 2),  # the inputs' bytes are there, the files are not
    Moment("VolumePutFiles2", 2, after=True),
    Moment("DictContents"),  # everything is there, nothing is called
)


def test_a_client_killed_again_and_again_before_it_calls_anything_loses_nothing(
    on_modal: Axosweep, server: ModalServer
) -> None:
    words = ("-m", "sequence_len=64,128", *ON_GPUS)
    for moment in BEFORE_ANY_CALL:
        start_to_die(on_modal, server, moment, *words)
    assert not server.function_calls()
    finish(on_modal, *words)
    assert attempts(server, on_modal) == [1] * 4
    assert calls_since(server, 0.0) == {"preprocess": 2, "train": 2}
    assert statuses(on_modal) == {"succeeded": 2}


WHILE_CALLING = [
    Moment("FunctionMap"),
    Moment("FunctionMap", after=True),  # called, and nobody has heard the id: only the call itself can claim its job
    Moment("DictUpdate", after=True),  # claimed, and not in the ledger
    Moment("FunctionMap", 2),
    Moment("FunctionMap", 2, after=True),
    Moment("DictUpdate", 2, after=True),
]


@pytest.mark.parametrize("moment", WHILE_CALLING, ids=str)
def test_the_line_of_a_client_killed_while_it_calls_submits_what_is_missing(
    axosweep: Axosweep, shared: ModalServer, moment: Moment
) -> None:
    on_modal = beside(axosweep, shared, axosweep.store)
    lengths = 200 + 8 * WHILE_CALLING.index(moment)
    words = ("-m", f"sequence_len={lengths},{lengths + 4}", *ON_GPUS)
    started = time.time()
    start_to_die(on_modal, shared, moment, *words)
    finish(on_modal, *words)
    assert attempts(shared, on_modal) == [1] * 4
    assert statuses(on_modal) == {"succeeded": 2}
    called = calls_since(shared, started)
    assert called["train"] == 2, "no GPU is rented for nothing"
    assert called["preprocess"] <= 2 + (moment.name == "FunctionMap" and moment.after)
    assert recorded(on_modal, Event.SUBMITTED) >= called["preprocess"], "an intent before each call"
    assert recorded(on_modal, Event.STARTED) >= called["preprocess"] - 1, "an id after each call, but for the last one"


def recorded(on_modal: Axosweep, event: Event) -> int:
    """How often that is in the ledger of its only sweep, or of its last two."""
    mirror = Store(on_modal.store.root / "modal")
    return sum(record.event is event for sweep in sweep_ids(mirror) for record in Ledger(mirror, sweep).records())


class TestManyRuns:
    """With one container, which is busy: they wait in the queue, and what counts is what the client does."""

    @pytest.fixture
    def settings(self) -> Settings:
        return noop_settings(max_containers=1, train_s=120.0)

    def test_64_runs_take_two_client_calls_each_and_their_line_once_more_makes_none(
        self, on_modal: Axosweep, server: ModalServer
    ) -> None:
        """From the first call to the last id; three a run would do. Uploads and the deployment come before."""
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
    finish(on_modal, "sequence_len=200", *ON_GPUS)  # deploys: what is raced for are the calls
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


def test_attached_to_from_elsewhere_a_sweep_is_what_it_is_here(
    on_modal: Axosweep, server: ModalServer, tmp_path: Path
) -> None:
    finish(on_modal, "-m", "lora=r8,r16", *ON_GPUS)
    for call in server.function_calls():
        server.expire(call.id)  # as after seven days: what is known is on the Volumes
    sweep = on_modal.json("compare")["sweep"]
    elsewhere = beside(on_modal, server, Store(tmp_path / "elsewhere"))
    attached = elsewhere.run("attach", sweep)
    assert attached.returncode == 0, attached.stderr

    def seen(axosweep: Axosweep) -> list[dict[str, object]]:
        root = str(axosweep.store.root)
        rows = axosweep.json("compare", sweep)["runs"]
        return [{name: str(value).replace(root, "") for name, value in row.items()} for row in rows]

    assert seen(elsewhere) == seen(on_modal)
    for row in on_modal.json("compare")["runs"]:
        log, there = (one.run("logs", row["key"]).stdout for one in (on_modal, elsewhere))
        assert there == log
        assert len(log.splitlines()) >= 50
        curve = Path("modal", "runs", row["key"], "metrics.jsonl")
        assert (elsewhere.store.root / curve).read_bytes() == (on_modal.store.root / curve).read_bytes()


class TestSlowSteps:
    """While something goes on."""

    @pytest.fixture
    def settings(self) -> Settings:
        return noop_settings(preprocess_s=1.0, train_s=4.0, grace_s=3.0)

    def test_status_tells_how_old_it_is_and_looks_when_asked(self, on_modal: Axosweep, server: ModalServer) -> None:
        client = on_modal.start("-m", "lora=r8,r16", *ON_GPUS)
        server.wait_until(lambda: server.function_calls("preprocess"), 30)
        kill(client.pid)
        client.communicate()
        server.wait_until(lambda: Counter(one.status for one in server.function_calls("train")) == {"success": 2}, 60)
        (sweep,) = on_modal.json("status")["sweeps"]
        assert sweep["counts"] == {"pending": 2}
        assert f"axosweep status {sweep['sweep']} --refresh" in on_modal.run("status").stderr
        refreshed = on_modal.run("status", "--refresh", "--json")
        assert '"succeeded": 2' in refreshed.stdout
        assert not refreshed.stderr

    def test_a_log_is_followed_from_before_the_run_begins_to_its_end(
        self, on_modal: Axosweep, server: ModalServer
    ) -> None:
        client = on_modal.start("lora=r8", *ON_GPUS)
        server.wait_until(lambda: server.function_calls("preprocess"), 30)
        kill(client.pid)
        client.communicate()
        (run,) = (on_modal.store.root / "modal" / "runs").iterdir()
        followed = on_modal.run("logs", run.name, "-f", timeout_s=60)
        assert followed.returncode == 0, followed.stderr
        assert followed.stdout.count("nothing to do") == 60

    def test_one_run_is_cancelled_and_its_dataset_and_the_others_go_on(
        self, on_modal: Axosweep, server: ModalServer
    ) -> None:
        client = on_modal.start("-m", "lora=r8,r16", *ON_GPUS)
        server.wait_until(lambda: server.function_calls("preprocess"), 30)
        wait_until(lambda: recorded(on_modal, Event.STARTED) == 1, "the dataset's id in the ledger", 10)
        cancelled, kept = sorted(path.name for path in (on_modal.store.root / "modal" / "runs").iterdir())
        done = on_modal.run("cancel", cancelled)
        assert done.returncode == 0, done.stderr
        client.communicate(timeout=60)
        rows = {row["key"]: row for row in on_modal.json("compare")["runs"]}
        assert rows[kept]["status"] == "succeeded"
        assert rows[cancelled]["message"] == "cancelled before it began"
        assert len(server.function_calls("train")) == 1
        finish(on_modal, "-m", "lora=r8,r16", *ON_GPUS)
        assert attempts(server, on_modal) == [1] * 3

    def test_one_of_two_runs_is_cancelled_while_both_train_and_the_other_goes_on(
        self, on_modal: Axosweep, server: ModalServer
    ) -> None:
        client = on_modal.start("-m", "lora=r8,r16", *ON_GPUS)
        server.wait_until(lambda: server.function_calls("train"), 60)
        runs = server.volume_tree(RUNS) / "runs"
        server.wait_until(lambda: len(list(runs.glob("*/attempt-1/container.json"))) == 2, 60)
        cancelled, kept = sorted(path.name for path in runs.iterdir())
        at = time.time()
        done = on_modal.run("cancel", cancelled)
        assert "1 ended" in done.stdout, done.stderr
        ended = [task.ended_at for task in server.tasks("train") if task.ended_at]
        assert len(ended) == 1, "the other one still trains"
        assert ended[0] < at + 3 + 5, "the grace time, and what the command itself takes"
        client.communicate(timeout=60)
        rows = {row["key"]: row["status"] for row in on_modal.json("compare")["runs"]}
        assert rows == {cancelled: "stopped", kept: "succeeded"}

    def test_a_cancelled_sweep_is_stopped_and_its_line_goes_on_with_it(
        self, on_modal: Axosweep, server: ModalServer
    ) -> None:
        client = on_modal.start("-m", "lora=r8,r16", *ON_GPUS)
        server.wait_until(lambda: server.log(function="train").count("began train") == 2, 60)
        kill(client.pid)
        client.communicate()
        cancelled = on_modal.run("cancel")
        assert "2 ended" in cancelled.stdout, cancelled.stderr
        assert statuses(on_modal) == {"stopped": 2}
        finish(on_modal, "-m", "lora=r8,r16", *ON_GPUS)
        assert Counter(attempts(server, on_modal)) == {1: 1, 2: 2}


def test_a_sweep_that_modal_refuses_is_none(on_modal: Axosweep, server: ModalServer) -> None:
    words = ("-m", "lora=r8,r16", *ON_GPUS)
    no_secret = on_modal.run(*words, "executor.modal.secret=not-there")
    no_token = Axosweep(on_modal.store, on_modal.folder, {**on_modal.environment, "MODAL_TOKEN_ID": "ak-wrong"})
    refused = no_token.run(*words)
    assert (no_secret.returncode, refused.returncode) == (2, 2)
    assert "modal secret create not-there" in no_secret.stderr
    assert "modal token new" in refused.stderr
    assert not on_modal.json("status")["sweeps"]
    assert not server.function_specs()
