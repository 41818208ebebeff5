"""What is wasteful is reported with its reason, what is sound is left alone, and both take no time."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from runner.environment import trainer_environment
from runner.environment.verdicts import Verdicts
from runner.executors.validator import FreshValidator
from runner.preflight.findings import Finding
from runner.preflight.schema import questions_of
from runner.preflight.stage import Preflight
from runner.types import Experiment
from tests.preflight.config_cases import Case, experiment_of, lay_out, read_cases

WASTEFUL = read_cases("wasteful")
SOUND = read_cases("sound")
MOST_MS = 20
"""That the findings about a run may take."""

NOT_TOLD: frozenset[str] = frozenset(
    {
        "LISA in the layers of GPT-2",
        "LISA of more layers than there are",
        "LISA with LoRA",
        "LISA with QLoRA",
        "a layer that is not there among some that are",
        "a local file has no split named test",
        "a local test file has no split named validation",
        "a regular expression that matches no module",
        "a split of the first 0 rows",
        "a split that begins after the last row",
        "all rows are shorter than min_sample_len",
        "as many rows held out as there are",
        "every segment is masked",
        "every turn says train false",
        "excess_length_strategy raise and one row that is too long",
        "experts in a dense model",
        "field_instruction names a column that no row has",
        "field_output names a column that no row has, so every answer is empty",
        "five percent of nine rows",
        "four of five local rows are too long",
        "greater is better for early stopping on the loss",
        "greater is better for eval_loss",
        "greater is better without a metric, which is then the loss",
        "layer 99 of 32",
        "long rows and a short sequence",
        "modules to save that are called otherwise",
        "names of MPT in a local Llama",
        "no role to train and no end of turn",
        "no role to train and the last end of turn, which only a trained turn sets",
        "no room for the template itself",
        "one of eight target modules is of another architecture",
        "only the output projection of Phi is trained",
        "preference columns under other names",
        "q, k and v of Llama in Phi, which fuses them",
        "roles_to_train names a role that no row has",
        "roles_to_train with a capital letter",
        "rows with the role model, which is not one of Axolotl's",
        "rows without an assistant",
        "sharegpt mappings over messages of the other kind",
        "sharegpt rows without property mappings",
        "the attention of Falcon in a Mistral",
        "the attention of GPT-2 in a Llama",
        "the best model by F1, saved when it is best",
        "the best model by a misspelt loss",
        "the best model by accuracy",
        "the best model by the training loss",
        "the dataset's shard after the last one",
        "the head is called lm_head",
        "the label of KTO under another name",
        "the last layer counted from 1",
        "the layers of GPT-2 under their own name",
        "the manifest counts 49,700 of 50,000 rows as dropped",
        "the manifest counts a third of a domain dataset as dropped",
        "the manifest counts no trained token",
        "the property of the content is misnamed",
        "the shard after the last one",
        "the shortest row that is wanted is longer than a sequence",
        "the streamed text column is called otherwise",
        "the test file is empty",
        "the test rows are of another format",
        "unfrozen layers after the last one",
        "unfrozen parameters of GPT-2 in a Llama",
    }
)
"""Wasteful cases that no rule reports yet. A case that is reported has to leave this list."""
NOT_LEFT_ALONE: frozenset[str] = frozenset()
"""Sound cases that a rule reports by mistake, or that are still argued about."""


def _findings(case: Case, asked: Experiment) -> list[Finding]:
    """As a launch reports them once the dataset is prepared, or before, if the case has no `prepared`."""
    preflight = Preflight([asked], Verdicts(None, ""), longest_rows=[case.manifest.longest_row])
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
    assert len(WASTEFUL) >= 60
    assert len(SOUND) >= 10
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


def test_no_name_is_listed_for_nothing() -> None:
    assert {case.name for case in WASTEFUL if case.accepted} >= NOT_TOLD
    assert {case.name for case in SOUND} >= NOT_LEFT_ALONE


def test_the_findings_about_a_run_take_no_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a sweep over all cases, each in its own folder; what was read for an earlier case does not count."""
    spent = []
    for number, case in enumerate((*WASTEFUL, *SOUND)):
        folder = tmp_path / str(number)
        folder.mkdir()
        monkeypatch.chdir(lay_out(case, folder))
        asked = experiment_of(case)
        begin = time.process_time()
        _findings(case, asked)
        spent.append((time.process_time() - begin) * 1000)
    median, most = sorted(spent)[len(spent) // 2], max(spent)
    print(f"findings: {median:.1f} ms a run, {most:.1f} ms at most, {len(spent)} runs")
    assert median < MOST_MS
    assert most < 10 * MOST_MS  # the first one reads the list of Axolotl's keys


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> Verdicts:
    """Axolotl's own on all of them: one process answers."""
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
    answers = [verdicts.get(question) for question in questions_of(experiment_of(case))]
    refusals = [problem for answer in answers for problem in (answer or {"problems": []})["problems"]]
    by_its_schema = [problem["message"] for problem in refusals if "kind" not in problem]
    assert (by_its_schema == []) is case.accepted, by_its_schema


@pytest.mark.slow
@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in WASTEFUL if not case.accepted])
def test_what_axolotl_refuses_needs_no_rule_of_ours(verdicts: Verdicts, case: Case) -> None:
    preflight = Preflight([experiment_of(case)], verdicts, longest_rows=[case.manifest.longest_row])
    texts = [one.finding.text for one in preflight.findings()]
    assert any(case.is_reported_by(one.finding) for one in preflight.findings()), texts
