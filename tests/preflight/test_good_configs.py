"""None of the good configs is refused, by us or by Axolotl itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from runner.environment import trainer_environment
from runner.environment.verdicts import Verdicts
from runner.executors.validator import FreshValidator
from runner.keys.identity import is_address
from runner.preflight.findings import blocking
from runner.preflight.stage import Preflight
from runner.types import Experiment, Gpu
from tests.good_configs.files import FILES, as_axolotl_reads, lay_out
from tests.runner.builders import experiment


@pytest.fixture
def good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Experiment]:
    """Each on eight H100s, with the seed that every run gets."""
    monkeypatch.chdir(lay_out(tmp_path))
    return [
        experiment(
            {key: one for key, one in {"seed": 42, **as_axolotl_reads(file)}.items() if not is_address(key)}
            | ({"seed": 42} if as_axolotl_reads(file).get("seed") is None else {}),
            gpu=Gpu("h100", 8),
            overrides=[file.stem],
        )
        for file in FILES
    ]


def _refused(preflight: Preflight) -> list[str]:
    return [one.finding.text for one in blocking(preflight.findings(), force=False)]


def test_no_good_config_is_refused(good: Sequence[Experiment]) -> None:
    assert len(good) >= 40
    assert _refused(Preflight(good, Verdicts(None, ""), longest_rows=[None] * len(good))) == []


@pytest.mark.slow
def test_no_good_config_is_refused_once_axolotl_was_asked(good: Sequence[Experiment]) -> None:
    preflight = Preflight(good, Verdicts(None, ""))
    preflight.ask(FreshValidator(trainer_environment.find()), good)
    assert not preflight.unasked(good)
    assert _refused(preflight) == []


def test_nothing_is_remarked_of_what_is_shipped(ask: Callable[..., Any]) -> None:
    """The defaults, and every recipe that can be planned as it is, need no second look."""
    from runner.config.vocabulary import read_vocabulary

    options = read_vocabulary().groups["training"]
    asked = [ask(f"training={option}").experiments[0] for option in options]
    preflight = Preflight(asked, Verdicts(None, ""))
    assert [one.finding.text for one in preflight.findings()] == []
