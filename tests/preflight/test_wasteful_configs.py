"""Wasteful configs are reported with the reason, sound ones are not, and both checks take no time."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modal_app.store.facts import DataManifest
from runner.config.vocabulary import read_vocabulary
from runner.environment import trainer_environment
from runner.environment.verdicts import Verdicts
from runner.executors.validator import FreshValidator
from runner.preflight.findings import Finding
from runner.preflight.schema import questions_of
from runner.preflight.stage import Preflight
from runner.types import Experiment, Gpu
from tests.good_configs.files import FILES, as_a_run_has_it, as_axolotl_reads
from tests.good_configs.files import lay_out as good_configs_in
from tests.preflight.config_cases import Case, experiment_of, lay_out, read_cases
from tests.runner.builders import experiment

WASTEFUL = read_cases("wasteful")
SOUND = read_cases("sound")
MOST_MS = 20
"""The most milliseconds that the findings about a run may take."""

NOT_TOLD: frozenset[str] = frozenset({})
"""Wasteful cases that no rule reports yet. A case that is reported has to leave this list."""
SHARDS = ("deepspeed", "fsdp_config", "context_parallel_size", "tensor_parallel_size", "dp_shard_size")
SHIPPED = ("training", "experiment", "lora")
RIGHTLY_REPORTED = {
    "checkpoints_and_profile": ["gc_steps"],
    "dpo_chatml_intel": ["dpo_beta"],
    "ipo": ["rl=ipo"],
    "qlora_packed_1b": ["dataset_processes", "flash_attention"],
    "simpo": ["gradient_checkpointing=offload"],
}
"""Good configs with deprecated keys, or that train on so few rows here that they end before a step they name."""
NOT_LEFT_ALONE: frozenset[str] = frozenset()
"""Sound cases that a rule reports by mistake, or that are still in dispute."""


def _findings(case: Case, requested: Experiment) -> list[Finding]:
    """The findings as a launch reports them once the dataset is prepared, or before, if the case has no `prepared`."""
    preflight = Preflight([requested], Verdicts(None, ""), prepared=[case.manifest])
    return [one.finding for one in preflight.findings()]


@pytest.fixture
def found(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Finding]:
    monkeypatch.chdir(lay_out(request.param, tmp_path))
    return _findings(request.param, experiment_of(request.param))


def _each(cases: list[Case]) -> list[object]:
    return [pytest.param(case, case, id=case.name) for case in cases]


def test_there_are_enough_of_every_kind() -> None:
    kinds = [case.kind for case in WASTEFUL]
    assert {kind for kind in kinds if kinds.count(kind) < 3} == set()
    assert len(WASTEFUL) >= 200
    assert len(SOUND) >= 100
    assert all(case.severity in ("error", "warning") and case.reason for case in WASTEFUL)
    assert all(case.looks_wrong for case in SOUND)


@pytest.mark.parametrize(("case", "found"), _each([case for case in WASTEFUL if case.accepted]), indirect=["found"])
def test_a_wasteful_config_is_reported_with_its_reason(case: Case, found: list[Finding]) -> None:
    reported = any(case.is_reported_by(finding) for finding in found)
    texts = "\n".join(f"{one.severity}: {one.text}" for one in found) or "nothing was reported"
    assert reported is (case.name not in NOT_TOLD), f"{case.severity} {case.reason} expected\n{texts}"


@pytest.mark.parametrize(("case", "found"), _each(SOUND), indirect=["found"])
def test_a_sound_config_is_left_alone(case: Case, found: list[Finding]) -> None:
    texts = [f"{one.severity}: {one.text}" for one in found]
    assert bool(texts) is (case.name in NOT_LEFT_ALONE), f"{case.looks_wrong}\n" + "\n".join(texts)


@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
def test_a_good_config_is_left_alone(file: Path, good_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The config on one card, or on eight if it shards the model."""
    monkeypatch.chdir(good_folder)
    config = as_a_run_has_it(as_axolotl_reads(file))
    cards = 8 if any(config.get(key) for key in SHARDS) else 1
    preflight = Preflight([experiment(config, gpu=Gpu("h100", cards))], Verdicts(None, ""), prepared=[DataManifest()])
    texts = [one.finding.text for one in preflight.findings()]
    expected = RIGHTLY_REPORTED.get(file.stem, [])
    assert len(texts) == len(expected), texts
    assert all(any(piece in text for text in texts) for piece in expected), texts


@pytest.fixture(scope="module")
def good_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return good_configs_in(tmp_path_factory.mktemp("good"))


def test_what_is_shipped_is_left_alone(ask: Callable[..., Any]) -> None:
    vocabulary = read_vocabulary()
    sweeps = [f"{group}={','.join(vocabulary.groups[group])}" for group in SHIPPED]
    requested = [experiment for sweep in sweeps for experiment in ask("-m", sweep).experiments]
    assert len(requested) == sum(len(vocabulary.groups[group]) for group in SHIPPED)
    preflight = Preflight(
        requested, Verdicts(None, "")
    )  # memory is estimated once rows are known, and has its own tests
    assert len(requested) >= 10
    assert [one.finding.text for one in preflight.findings()] == []


def test_no_name_is_listed_for_nothing() -> None:
    assert {case.name for case in WASTEFUL if case.accepted} >= NOT_TOLD
    assert {case.name for case in SOUND} >= NOT_LEFT_ALONE


@pytest.mark.medium
def test_the_findings_about_a_run_take_no_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time for a sweep over all cases, each in its own folder; what was read for an earlier case does not count."""
    spent = []
    for number, case in enumerate((*WASTEFUL, *SOUND)):
        folder = tmp_path / str(number)
        folder.mkdir()
        monkeypatch.chdir(lay_out(case, folder))
        requested = experiment_of(case)
        begin = time.process_time()
        _findings(case, requested)
        spent.append((time.process_time() - begin) * 1000)
    median, most = sorted(spent)[len(spent) // 2], max(spent)
    print(f"findings: {median:.1f} ms a run, {most:.1f} ms at most, {len(spent)} runs")
    assert median < MOST_MS
    assert most < 10 * MOST_MS  # the first one reads the list of Axolotl's keys


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> Verdicts:
    """Axolotl's own verdicts on all of them, from one process."""
    known = Verdicts(None, trainer_environment.identity(None))
    experiments = []
    with pytest.MonkeyPatch.context() as patch:
        for case in (*WASTEFUL, *SOUND):
            patch.chdir(lay_out(case, tmp_path_factory.mktemp("case")))
            experiments.append(experiment_of(case))
        Preflight(experiments, known).ask(FreshValidator(trainer_environment.find()), experiments)
    return known


@pytest.mark.slow
@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in (*WASTEFUL, *SOUND)])
def test_axolotl_itself_accepts_what_is_said_to_be_accepted(verdicts: Verdicts, case: Case) -> None:
    answers = [answer for question in questions_of(experiment_of(case)) if (answer := verdicts.get(question))]
    assert answers
    refusals = [problem for answer in answers for problem in answer["problems"]]
    by_its_schema = [problem["message"] for problem in refusals if "kind" not in problem]
    assert (by_its_schema == []) is case.accepted, by_its_schema


@pytest.mark.slow
@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in WASTEFUL if not case.accepted])
def test_what_axolotl_refuses_needs_no_rule_of_ours(verdicts: Verdicts, case: Case) -> None:
    preflight = Preflight([experiment_of(case)], verdicts, prepared=[case.manifest])
    texts = [one.finding.text for one in preflight.findings()]
    assert any(case.is_reported_by(one.finding) for one in preflight.findings()), texts
