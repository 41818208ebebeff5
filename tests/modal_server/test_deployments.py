from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from types import ModuleType

import modal
import pytest
from grpclib import Status
from modal_proto import api_pb2

from tests.modal_server import ModalServer
from tests.modal_server.deployed import APPS, Small

FreshApp = Callable[[str], ModuleType]
FIRST = "the first code"
MODAL_COMMANDS = Path(__file__).with_name("modal_commands_script.py")


@pytest.fixture
def deploy(
    fresh_app: FreshApp, modal_client: modal.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], None]:
    monkeypatch.syspath_prepend(str(tmp_path))

    def write_and_deploy(text: str) -> None:
        code = (APPS / "versioned_app.py").read_text()
        assert FIRST in code
        (tmp_path / "versioned_app.py").write_text(code.replace(FIRST, text))
        fresh_app("versioned_app").app.deploy(client=modal_client)

    return write_and_deploy


def test_a_pinned_version_runs_the_code_it_was_deployed_with(
    deploy: Callable[[str], None], modal_client: modal.Client, modal_server: ModalServer
) -> None:
    deploy(FIRST)
    first = modal.Function.from_name("versioned", "tell", version=1, client=modal_client)
    newest = modal.Function.from_name("versioned", "tell", client=modal_client)
    assert newest.remote() == FIRST
    deploy("another code")
    assert newest.remote() == "another code"
    assert first.remote() == FIRST
    assert first.with_options(timeout=60).remote() == FIRST
    with pytest.raises(modal.exception.NotFoundError):
        modal.Function.from_name("versioned", "tell", version=3, client=modal_client).remote()


def test_what_does_not_exist_is_not_found(modal_server: ModalServer, modal_client: modal.Client) -> None:
    with pytest.raises(modal.exception.NotFoundError):
        modal.Function.from_name("nobody", "f", client=modal_client).hydrate()
    with pytest.raises(modal.exception.NotFoundError):
        modal.Volume.from_name("nobody", client=modal_client).hydrate()
    with pytest.raises(modal.exception.NotFoundError):
        modal.Dict.from_name("nobody", client=modal_client).hydrate()
    with pytest.raises(modal.exception.NotFoundError):
        modal.Secret.from_name("nobody", client=modal_client).hydrate()


def test_a_missing_secret_and_a_missing_key_stop_the_deployment(
    fresh_app: FreshApp, modal_server: ModalServer, modal_client: modal.Client
) -> None:
    with pytest.raises(modal.exception.NotFoundError, match="keys"):
        fresh_app("small_app").app.deploy(client=modal_client)
    modal_server.set_secret("keys", {"OTHER": "1"})
    with pytest.raises(modal.exception.NotFoundError, match="API_KEY"):
        fresh_app("small_app").app.deploy(client=modal_client)
    modal_server.set_secret("keys", {"API_KEY": "sesame"})
    fresh_app("small_app").app.deploy(client=modal_client)
    assert modal.Function.from_name("small", "reveal", client=modal_client).remote() == "sesame"


def test_function_specs_and_image_layers_are_stored_as_the_client_sent_them(shared: Small) -> None:
    specs = shared.server.function_specs()
    assert specs["outlast"][-1].timeout_secs == 1
    assert specs["fail_before"][-1].retry_policy.retries == 2
    assert [spec.resources.gpu_config.gpu_type for spec in specs["ranked"]] == ["H100", "A100-80GB"]
    assert [mount.read_only for mount in specs["write_read_only"][-1].volume_mounts] == [True]
    assert shared.server.image_layers("add")[-1] == "ENV FLAVOUR=plain"


def test_a_wrong_token_is_refused(modal_server: ModalServer, modal_client: modal.Client) -> None:
    stranger = modal.Client.from_credentials("ak-else", "as-else")
    with pytest.raises(modal.exception.AuthError):
        modal.Dict.from_name("claims", create_if_missing=True, client=stranger).hydrate()
    stranger.close()


def test_a_call_whose_answer_is_lost_had_its_effect(shared: Small) -> None:
    before = len(shared.server.function_calls())
    shared.server.fail("FunctionMap", after=True)
    with pytest.raises(modal.exception.ConflictError):
        shared("wait").spawn(0, "lost")
    shared.server.wait_until(lambda: shared.server.dict_items("claims").get(("started", "lost")))
    shared.server.fail("FunctionMap")
    with pytest.raises(modal.exception.ConflictError):
        shared("wait").spawn(0, "never")
    assert len(shared.server.function_calls()) == before + 1


def test_a_call_that_the_client_repeats_by_itself_has_its_effect_once(shared: Small) -> None:
    before = len(shared.server.function_calls())
    shared.server.fail("FunctionMap", status=Status.UNAVAILABLE, after=True)
    assert shared("wait").spawn(0, "repeated").get(timeout=20) == "repeated"
    assert shared.server.counts()["FunctionMap"] == 2
    assert len(shared.server.function_calls()) == before + 1


def test_a_client_is_killed_at_the_very_call_that_the_test_names(modal_server: ModalServer, tmp_path: Path) -> None:
    script = Path(__file__).with_name("five_puts_script.py")
    clients: list[subprocess.Popen[bytes]] = []
    modal_server.act("DictUpdate", lambda: clients[0].kill(), nth=3, after=True)
    clients.append(subprocess.Popen([sys.executable, script], env=os.environ | modal_server.environment()))
    assert clients[0].wait(30) == -signal.SIGKILL
    assert modal_server.dict_items("names") == {0: 0, 1: 1, 2: 2}


def test_an_unknown_call_is_answered_unimplemented_and_named(
    modal_server: ModalServer, modal_client: modal.Client, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(modal.exception.UnimplementedError, match="QueueGetOrCreate"):
        modal.Queue.from_name("q", create_if_missing=True, client=modal_client).hydrate()
    assert modal_server.unknown_calls() == {"QueueGetOrCreate": 1}
    assert "QueueGetOrCreate" in capfd.readouterr().err


def test_two_clients_meet_where_the_test_holds_them(modal_server: ModalServer, modal_client: modal.Client) -> None:
    keys = modal.Dict.from_name("keys", create_if_missing=True, client=modal_client)
    keys.hydrate()
    release = modal_server.hold("DictUpdate")
    with ThreadPoolExecutor() as threads:
        late = threads.submit(keys.put, "key", "late", skip_if_exists=True)
        modal_server.wait_until(lambda: modal_server.counts()["DictUpdate"])
        assert keys.put("key", "early", skip_if_exists=True) is True
        release()
        assert late.result(10) is False


def test_any_call_can_be_given_an_answer(modal_server: ModalServer, modal_client: modal.Client) -> None:
    rates = api_pb2.WorkspaceBillingRatesResponse(rates={"gpu_h100": "0.001"}, formatted="{}")
    modal_server.answer("WorkspaceBillingRates", rates)
    assert modal.Workspace.from_context(client=modal_client).billing.rates()["gpu_h100"] == Decimal("0.001")


@pytest.mark.slow
def test_the_command_line_works_too(small: Small, modal_server: ModalServer, tmp_path: Path) -> None:
    small("add").spawn(1).get(timeout=20)
    small("write").remote("a/b.txt", "text", commit=True) if modal_server.settings.mounts else None

    task = modal_server.tasks("add")[0].id
    (tmp_path / "up.txt").write_text("its content")
    expected = [
        ("container list --json", task),
        ("app list --json", "small"),
        ("app logs small", "adding 1 and 1"),
        ("volume list --json", "notes"),
        ("secret list --json", "keys"),
        ("token info", "ak-local"),
        ("secret create made NAME=value", ""),
        ("secret list --json", "made"),
        (f"volume put notes {tmp_path / 'up.txt'} /up.txt", ""),
        ("volume ls notes", "up.txt"),
        ("volume get notes up.txt -", "its content"),
        ("volume rm notes up.txt", ""),
        ("volume ls notes", ""),
        ("app stop small --yes", ""),
    ]
    done = subprocess.run(
        [sys.executable, MODAL_COMMANDS], input=json.dumps([words.split() for words, _ in expected]),
        env=os.environ | modal_server.environment(), check=True, stdout=subprocess.PIPE, text=True, timeout=120,
    )  # fmt: skip
    outputs = json.loads(done.stdout)
    assert [words for (words, part), output in zip(expected, outputs, strict=True) if part not in output] == []
    assert "up.txt" not in outputs[-2], "it was removed"
    assert "made" not in outputs[4], "it is the second list that has it"
    modal_server.wait_until(lambda: all(task.ended_at for task in modal_server.tasks()))


def test_an_app_that_runs_with_its_client_ends_with_it(
    fresh_app: FreshApp, modal_server: ModalServer, modal_client: modal.Client
) -> None:
    modal_server.set_secret("keys", {"API_KEY": "sesame"})
    module = fresh_app("small_app")
    with module.app.run(client=modal_client):
        assert module.add.remote(4) == 5
    modal_server.wait_until(lambda: all(task.ended_at for task in modal_server.tasks()))
