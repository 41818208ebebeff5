"""executor=modal with a worker that does nothing: how a sweep is followed, by its own client and from elsewhere.
Clients that are killed are in test_modal_killed.py."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from modal_app.store.layout import Store
from runner.store.ledger import Event
from tests.end_to_end.axosweep import Axosweep, kill
from tests.end_to_end.on_modal import ON_GPUS, beside, finish, local_modal, machine, recorded, statuses
from tests.modal_server import ModalServer
from tests.modal_server.fixture import SECRET, needs_mounts, noop_settings
from tests.webhook_server import PATH, serve_webhook

pytestmark = [pytest.mark.slow, needs_mounts]


@pytest.fixture
def server() -> Iterator[ModalServer]:
    with local_modal(noop_settings()) as server:
        yield server


def test_a_sweep_over_gpus_that_do_not_exist_and_with_a_long_config_ends_in_its_table(
    on_modal: Axosweep, server: ModalServer
) -> None:
    long = ",".join(f"part{number}_proj" for number in range(1000))
    assert finish(on_modal, "-m", "lora=r8,r16", f"lora_target_modules=[{long}]", *ON_GPUS) == {"succeeded": 2}
    assert Counter(call.gpu for call in server.function_calls()) == {"": 1, "A100-80GB:2": 2}
    assert statuses(on_modal) == {"succeeded": 2}
    sizes = [len(call.request.SerializeToString()) for call in server.calls("FunctionMap")]
    assert len(sizes) == 3
    assert max(sizes) < 8192 < len(long), "what is long goes over the Volume"
    requests = (call.request for call in server.calls("VolumePutFiles2"))
    tops = [file.path.strip("/").partition("/")[0] for one in requests for file in getattr(one, "files", ())]
    assert max(tops.index("runs"), tops.index("sweeps")) < tops.index("inputs"), "gc removes inputs that nothing names"


def test_a_log_is_followed_from_before_the_run_begins_to_its_end(alone: Axosweep) -> None:
    with local_modal(noop_settings(preprocess_s=1.0, train_s=2.0)) as server:
        on_modal = beside(alone, server, alone.store)
        before = recorded(on_modal, Event.STARTED)
        client = on_modal.start("lora=r8", *ON_GPUS)
        server.wait_until(lambda: recorded(on_modal, Event.STARTED) > before, 30)
        kill(client.pid)
        client.communicate()
        (run,) = (on_modal.store.root / "modal" / "runs").iterdir()
        followed = on_modal.run("logs", run.name, "-f", timeout_s=60)
        assert followed.returncode == 0, followed.stderr
        assert followed.stdout.count("nothing to do") == 60


def test_a_webhook_gets_a_notice_of_the_end_though_the_laptop_is_closed(alone: Axosweep) -> None:
    with local_modal(noop_settings(preprocess_s=0.5, train_s=0.5)) as server, serve_webhook() as webhook:
        on_modal = beside(alone, server, alone.store)
        words = ("-m", "lora=r8,r16", *ON_GPUS, "notify=MY_NOTIFY_URL")
        refused = on_modal.run(*words)
        assert refused.returncode == 2
        assert "secrets-hf-wandb has no MY_NOTIFY_URL, which notify=MY_NOTIFY_URL needs" in refused.stderr
        assert "tracking=offline" not in refused.stderr, "that is no way out"
        assert not server.function_calls()

        server.set_secret("secrets-hf-wandb", {**SECRET, "MY_NOTIFY_URL": webhook.address})
        client = on_modal.start(*words)
        server.wait_until(lambda: server.function_calls("preprocess"), 60)
        kill(client.pid)
        client.communicate()
        webhook.wait_for(lambda: len(webhook.bodies) > 0)
        (plan,) = on_modal.store.root.glob("modal/sweeps/*/plan.json")
        (body,) = webhook.bodies
        assert (body["sweep"], body["event"], body["counts"]) == (plan.parent.name, "sweep done", {"succeeded": 2})

        webhook.status = 503
        attached = on_modal.run("attach", plan.parent.name)
        assert attached.returncode == 0, attached.stderr
        assert "A notice was not sent" not in attached.stderr
        # Two runs that end at the same moment may both call it; only one of the calls sends.
        assert all(call.parent_input_id for call in server.function_calls("notify")), "attach has called it again"
        assert len(webhook.bodies) == 1
        written = [path.read_text(errors="replace") for path in on_modal.store.root.rglob("*") if path.is_file()]
        sent = json.dumps([server.dict_items("axosweep-claims"), server.log()])
        assert not any(PATH in text for text in [attached.stdout, attached.stderr, sent, *written])


@dataclass(frozen=True)
class Abandoned:
    """A finished sweep of two runs, whose client was killed after it had called the dataset."""

    server: ModalServer
    sweep: str
    left: Axosweep
    """The place as the client has left it. Only to be copied."""
    attached: Axosweep
    """Another machine, which has followed from then until the end."""

    def copy(self, folder: Path) -> Axosweep:
        shutil.copytree(self.left.store.root, folder / "store", symlinks=True)
        return Axosweep(Store(folder / "store"), folder, self.server.environment())


@pytest.fixture(scope="module")
def abandoned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Abandoned]:
    with local_modal(noop_settings(preprocess_s=1.0, train_s=1.0)) as server:
        folder = tmp_path_factory.mktemp("abandoned")
        left, elsewhere = machine(server, folder / "here"), machine(server, folder / "elsewhere")
        client = left.start("-m", "lora=r8,r16", *ON_GPUS)
        # A call that nobody has claimed yet is one that `attach` cannot know of.
        server.wait_until(lambda: recorded(left, Event.STARTED), 60)
        kill(client.pid)
        client.communicate()
        (plan,) = left.store.root.glob("modal/sweeps/*/plan.json")
        attached = elsewhere.run("attach", plan.parent.name)
        assert attached.returncode == 0, attached.stderr
        yield Abandoned(server, plan.parent.name, left, elsewhere)


def test_a_killed_client_leaves_a_sweep_that_goes_on_and_can_be_attached_to_from_anywhere(abandoned: Abandoned) -> None:
    assert statuses(abandoned.attached) == {"succeeded": 2}
    assert Counter(task.function for task in abandoned.server.tasks()) == {"preprocess": 1, "train": 2}


def test_status_tells_how_old_it_is_and_looks_when_asked(abandoned: Abandoned, tmp_path: Path) -> None:
    here = abandoned.copy(tmp_path)
    (sweep,) = here.json("status")["sweeps"]
    assert sweep["counts"] == {"pending": 2}
    assert f"axosweep status {abandoned.sweep} --refresh" in here.run("status").stderr
    refreshed = here.run("status", "--refresh", "--json")
    assert '"succeeded": 2' in refreshed.stdout
    assert not refreshed.stderr


def test_seen_after_its_calls_are_forgotten_it_is_what_it_was_before(abandoned: Abandoned, tmp_path: Path) -> None:
    """As after seven days: what is known is on the Volumes."""
    for call in abandoned.server.function_calls():
        abandoned.server.expire(call.id)
    late = machine(abandoned.server, tmp_path / "late")
    attached = late.run("attach", abandoned.sweep)
    assert attached.returncode == 0, attached.stderr

    def seen(axosweep: Axosweep) -> list[dict[str, object]]:
        root = str(axosweep.store.root)
        rows = axosweep.json("compare", abandoned.sweep)["runs"]
        return [{name: str(value).replace(root, "") for name, value in row.items()} for row in rows]

    rows = seen(late)
    assert rows == seen(abandoned.attached)
    for row in rows:
        log, there = (one.run("logs", str(row["key"])).stdout for one in (late, abandoned.attached))
        assert there == log
        assert len(log.splitlines()) >= 50
        curve = Path("modal", "runs", str(row["key"]), "metrics.jsonl")
        assert (late.store.root / curve).read_bytes() == (abandoned.attached.store.root / curve).read_bytes()


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
