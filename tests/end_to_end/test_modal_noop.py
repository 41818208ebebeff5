"""executor=modal where only the calls matter: the worker in the containers does nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from tests.end_to_end.axosweep import Axosweep
from tests.modal_server import ModalServer
from tests.modal_server.fixture import needs_mounts, noop_settings

pytestmark = [pytest.mark.slow, needs_mounts]

SECRET = {"HUGGINGFACE_TOKEN": "hf_test", "WANDB_API_KEY": "k" * 40}
WORDS = ("-m", "lora=r8,r16", "tracking=disabled", "executor=modal")


@pytest.fixture
def server() -> Iterator[ModalServer]:
    with ModalServer(noop_settings()) as server:
        server.set_secret("secrets-hf-wandb", SECRET)
        yield server


@pytest.fixture
def on_modal(axosweep: Axosweep, server: ModalServer) -> Axosweep:
    return Axosweep(axosweep.store, axosweep.folder, server.environment())


def test_a_sweep_over_gpus_that_nobody_has_ends_in_its_table(on_modal: Axosweep, server: ModalServer) -> None:
    done = on_modal.run(*WORDS, "gpu=a100_80gb", "gpu.count=2")
    assert done.returncode == 0, done.stderr
    assert Counter(call.gpu for call in server.function_calls()) == {"": 1, "A100-80GB:2": 2}
    assert {row["status"] for row in on_modal.json("compare")["runs"]} == {"succeeded"}
