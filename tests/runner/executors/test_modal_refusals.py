"""The first errors that a new Modal account may give, from a local Modal that refuses: each shows Modal's words and a
way out."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import modal
import pytest
from grpclib import Status
from modal_proto import api_pb2

from modal_app.cloud.settings import Deployment
from modal_app.store.layout import Store
from runner.errors import SweepError
from runner.executors.modal import ModalExecutor
from runner.executors.modal_gpus import Placement, Variant
from runner.store.ledger import Ledger
from runner.types import Gpu, Plan
from tests.modal_server import ModalServer, Settings
from tests.modal_server.fixture import SECRET, client_of
from tests.runner.builders import open_sweep, run

DEPLOYMENT = Deployment("axosweep", "cache", "runs", "claims", "secrets-hf-wandb", "ubuntu:24.04")


@pytest.fixture(scope="module")
def server() -> Iterator[ModalServer]:
    with pytest.MonkeyPatch.context() as patch, ModalServer(Settings()) as server, client_of(server, patch):
        server.set_secret(DEPLOYMENT.secret, SECRET)
        yield server


@pytest.fixture
def launch(store: Store, server: ModalServer) -> Callable[[], None]:
    """Deploys, and submits nothing."""
    ledger = Ledger(store, "sweep")
    ledger.begin("axosweep")
    executor = ModalExecutor(store, DEPLOYMENT, ledger, {}, ())
    return lambda: executor.execute(Plan("sweep", (), ()), lambda: None)


@pytest.mark.parametrize(
    ("call", "status", "words", "way_out"),
    [
        ("AppCreate", Status.RESOURCE_EXHAUSTED, "Workspace spend limit reached", "raise the limit there"),
        ("AppCreate", Status.PERMISSION_DENIED, "Token lacks permission to deploy", "MODAL_PROFILE"),
        ("AppGetByDeploymentName", Status.UNAUTHENTICATED, "Token ID is invalid", "Run `modal token new`."),
        ("EnvironmentGetOrCreate", Status.NOT_FOUND, "Workspace 'nope' not found", "`modal profile current`"),
        ("AppCreate", Status.INVALID_ARGUMENT, "CPU request is above the maximum", "executor.modal.cpu"),
        ("AppCreate", Status.FAILED_PRECONDITION, "App is stopped", "the same command deploys it again"),
        ("AppCreate", Status.DATA_LOSS, "internal failure", "The same command continues"),
    ],
)
def test_a_refusal_ends_in_modals_own_words_and_the_way_out(
    server: ModalServer, launch: Callable[[], None], call: str, status: Status, words: str, way_out: str
) -> None:
    server.fail(call, status=status, message=words)
    with pytest.raises(SweepError) as refused:
        launch()
    text = str(refused.value)
    assert words in text
    assert way_out in text
    assert "\n" not in text


def test_an_image_that_cannot_be_built_is_named_with_its_reason(
    server: ModalServer, launch: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    failed = api_pb2.GenericResult(
        status=api_pb2.GenericResult.GENERIC_STATUS_FAILURE, exception="RUN pip install exited with 1"
    )
    server.answer("ImageGetOrCreate", api_pb2.ImageGetOrCreateResponse(image_id="im-1", result=failed))
    with pytest.raises(SweepError, match=r"Modal could not build the image: .* exited with 1\. .* above"):
        launch()
    server.forget_answer("ImageGetOrCreate")
    shown = capsys.readouterr()
    assert f"Deploying {DEPLOYMENT.app_name}." in shown.err
    assert shown.out == "", "stdout may hold JSON"


def test_what_modal_prints_of_a_deployment_is_shown_once_and_not_on_stdout(
    server: ModalServer, launch: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    launch()
    shown = capsys.readouterr()
    assert "Created Function" in " ".join(shown.err.split())
    assert shown.out == ""
    launch()
    assert "Deploying" not in capsys.readouterr().err, "the app is there"
    assert modal.Function.from_name(DEPLOYMENT.app_name, "train").hydrate().object_id


def test_a_request_above_modals_maximum_is_refused_before_anything_is_paid(store: Store, server: ModalServer) -> None:
    """Its dataset is not prepared either: the GPU's options are bound before the first call."""
    plan = open_sweep(store, [run({"base_model": "inputs/abc"}, gpu=Gpu("h100", 1))])
    placed = {one.run.key: Placement(Variant(("H100",), 1), None) for one in plan.runs}
    executor = ModalExecutor(store, DEPLOYMENT, Ledger(store, plan.sweep), placed, ())
    server.fail("FunctionBindParams", status=Status.INVALID_ARGUMENT, message="memory request is above the maximum")
    with pytest.raises(SweepError, match=r"memory request is above the maximum. .* executor.modal.cpu and memory_gib"):
        executor.execute(plan, lambda: None)
    assert not server.function_calls()
