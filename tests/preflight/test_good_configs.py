"""None of the good configs is refused, by us or by Axolotl itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from modal_app.store.facts import DataManifest
from runner.config.shipped import shipped_root
from runner.environment.verdicts import Verdicts
from runner.keys.identity import is_address
from runner.preflight.findings import blocking
from runner.preflight.rules import rule_findings
from runner.preflight.rules.run_facts import RunFacts
from runner.preflight.stage import Preflight
from runner.types import Experiment, Gpu
from tests.good_configs.files import FILES, as_axolotl_reads, lay_out
from tests.preflight.could_run import obstacles
from tests.runner.builders import experiment

FORK = f"cut-cross-entropy @ git+https://github.com/axolotl-ai-cloud/ml-cross-entropy@{'c' * 40}"
NEEDED = {
    "adamw_4bit": ["q-galore-torch==1.0"],
    "grpo_colocated_vllm": ["vllm==0.30.0"],
    "long_context_parallel": ["axolotl-ringmaster==0.2.6", FORK],
    "more_plugins": ["swanlab==0.7.0"],
    "vision_qwen2_5_vl": ["torchvision==0.29.1"],
}
"""What some of them need beyond the trainer's lock."""


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
    assert _refused(Preflight(good, Verdicts(None, ""), prepared=[DataManifest()] * len(good))) == []


@pytest.mark.slow
def test_every_good_config_could_run_on_this_trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the packages that it needs, Axolotl's schema accepts it, and everything that it names can be imported."""
    monkeypatch.chdir(lay_out(tmp_path))
    packages = {file: NEEDED.get(file.stem, ()) for file in FILES}
    assert {file.stem: texts for file, texts in obstacles(FILES, packages=packages).items() if texts} == {}


def test_nothing_is_remarked_of_what_is_shipped(ask: Callable[..., Any]) -> None:
    """The defaults, and every recipe that can be planned as it is, are accepted without a finding."""
    from runner.config.vocabulary import read_vocabulary

    options = read_vocabulary().groups["training"]
    requested = [ask(f"training={option}").experiments[0] for option in options]
    preflight = Preflight(requested, Verdicts(None, ""))
    assert [one.finding.text for one in preflight.findings()] == []


def test_no_rule_speaks_about_a_shipped_experiment_or_sweep(ask: Callable[..., Any]) -> None:
    from runner.config.vocabulary import read_vocabulary

    lines = [[f"experiment={one}", "executor=modal"] for one in read_vocabulary().groups["experiment"]]
    lines += [["-m", f"+sweeps={file.stem}"] for file in (shipped_root() / "sweeps").glob("*.yaml")]
    assert len(lines) >= 10
    requested = [one for line in lines for one in ask(*line).experiments]
    assert {one.text for experiment in requested for one in rule_findings(RunFacts(experiment))} == set()


def test_no_rule_speaks_about_a_good_config(
    good: Sequence[Experiment], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Away from the files that replace the users' own: these have few rows, and rules would report that."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    found = {(one.overrides[0], said.text) for one in good for said in rule_findings(RunFacts(one))}
    assert found == set()
