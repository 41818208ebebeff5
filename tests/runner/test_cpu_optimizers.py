"""gpu=cpu does not change an optimizer that the user names; one without code for a CPU is replaced with a message, or
refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runner.errors import SweepError
from runner.preflight import quick_findings
from runner.preflight.findings import Severity
from tests.conftest import refuse

BASE = "base_model: a/b\ndatasets: [{path: a/c, type: alpaca}]\nlearning_rate: 1e-3\noptimizer: "


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's project."""
    monkeypatch.chdir(tmp_path)
    for name in ("muon", "flash_lion"):
        (tmp_path / f"{name}.yml").write_text(f"{BASE}{name}\n")
    (tmp_path / "conf/training").mkdir(parents=True)
    own = "# @package axolotl\ndefaults: [default, _self_]\noptimizer: adopt_adamw\n"
    (tmp_path / "conf/training/mine.yaml").write_text(own)
    return tmp_path


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("", "adamw_torch"),
        ("gpu=h100", "adamw_bnb_8bit"),
        ("gpu.type=h100", "adamw_bnb_8bit"),
        ("optimizer=muon", "muon"),
        ("training=mine", "adopt_adamw"),
        ("base=muon.yml gpu=cpu", "muon"),
        ("base=flash_lion.yml gpu=cpu", "adamw_torch"),
        ("base=flash_lion.yml gpu=h100", "flash_lion"),
        ("base=flash_lion.yml", "flash_lion"),
        ("-m hydra/launcher=basic optimizer=flash_lion", "adamw_torch"),
        ("-m gpu=cpu optimizer=adafactor", "adafactor"),
    ],
)
def test_the_optimizer_is_the_one_that_was_given_if_the_cpu_can(ask: Callable[..., Any], line: str, name: str) -> None:
    (one,) = ask(*line.split()).experiments
    assert one.axolotl["optimizer"] == name


@pytest.mark.usefixtures("here")
def test_one_that_is_replaced_is_named_in_the_plan(ask: Callable[..., Any]) -> None:
    (one,) = ask("base=flash_lion.yml", "gpu=cpu").experiments
    (found,) = [finding for finding in quick_findings(one) if finding.key == "optimizer"]
    assert found.severity is Severity.WARNING
    assert "optimizer=flash_lion: it has no code for a CPU" in found.text
    assert "so this run trains with adamw_torch" in found.text


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    "line", ["-m optimizer=flash_lion,muon", "-m base=muon.yml,flash_lion.yml gpu=cpu", "base=flash_lion.yml"]
)
def test_one_that_is_swept_or_wanted_as_it_is_is_refused(ask: Callable[..., Any], line: str) -> None:
    with pytest.raises(SweepError, match=r"optimizer=flash_lion: it has no code for a CPU .* set optimizer="):
        refuse(ask(*line.split()).experiments)
