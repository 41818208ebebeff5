"""from=RUN@STEP on the local Modal: the checkpoint leaves its Volume, and is an input of the run that goes on there."""

from __future__ import annotations

import json

import pytest

from modal_app.layout import Store
from modal_app.step import StepKind
from tests.end_to_end.axosweep import Axosweep
from tests.modal_server import ModalServer
from tests.modal_server.fixture import needs_mounts

pytestmark = [pytest.mark.slow, needs_mounts]

WORDS = ("lora=r8", "tracking=disabled", "max_steps=12", "~saves_per_epoch", "save_steps=6", "executor=modal")


def test_a_run_on_modal_goes_on_from_another_one_there(on_modal: Axosweep, server: ModalServer) -> None:
    (before,) = on_modal.json(*WORDS)["runs"]
    (after,) = on_modal.json(*WORDS, f"from={before['key']}@6", "learning_rate=0.001")["runs"]
    assert after["status"] == "succeeded", after["message"]
    earlier, later = (logged(on_modal, run["key"]) for run in (before, after))
    assert min(later) == 6, "what it begins with is evaluated"
    assert later[7]["loss"] == earlier[7]["loss"], "the same weights, the same rows"
    for step in range(7, 13):
        assert later[step]["learning_rate"] == pytest.approx(earlier[step]["learning_rate"] / 4)
    assert not server.unknown_calls()


def logged(axosweep: Axosweep, key: str) -> dict[int, dict[str, float]]:
    """What was logged at each step."""
    mirror = Store(axosweep.store.root / "modal")
    lines: dict[int, dict[str, float]] = {}
    for text in mirror.folder(StepKind.TRAIN, key).metrics.read_text().splitlines():
        line = json.loads(text)
        lines.setdefault(line["step"], {}).update(line)
    return lines
