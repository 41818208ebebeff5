"""What is wasteful is reported with its reason, what is sound is left alone, and both take no time."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

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
"""That the findings about a run may take."""

NOT_TOLD: frozenset[str] = frozenset(
    {
        "0.0001 of Alpaca",
        "100 epochs of 400 rows",
        "2,601 rows evaluated at each step",
        "25 epochs of all weights",
        "30 epochs as text with QLoRA",
        "40 epochs of Alpaca",
        "45,000 of 52,002 rows",
        "95 percent held out instead of trained on",
        "Adafactor for all weights at 1e-2",
        "ChatML's end of turn with LoRA and untrained embeddings",
        "DPO of all weights at 2e-4",
        "DPO with LoRA at 1e-3",
        "DoRA with alpha 1024",
        "DoRA without an adapter",
        "FSDP on one card",
        "GRPO of all weights at 1e-4",
        "Gemma 2, whose activations overflow, on an A100",
        "Gemma's for Llama 3",
        "KTO of all weights at 1e-4",
        "KTO's weights in DPO",
        "LISA in the layers of GPT-2",
        "LISA of more layers than there are",
        "LISA with LoRA",
        "LISA with QLoRA",
        "LISA's layers without its interval",
        "Lion at AdamW's rate for LoRA times ten",
        "Llama 3 in fp16 on an H100",
        "Llama 3's for Mistral",
        "Llama 3's for Qwen 2.5",
        "Llama 3's in a vocabulary without its tokens",
        "LoRA at 1e-6",
        "LoRA at 2e-2, an exponent too near",
        "LoRA forgets nine of ten inputs",
        "LoRA on an H100",
        "LoRA+ without an adapter",
        "ORPO of all weights at 5e-4",
        "Phi 3's for Gemma, in the dataset",
        "QLoRA at 5e-7, a rate of DPO",
        "QLoRA of 3B on two cards",
        "QLoRA of 70B at 5e-3",
        "QLoRA of 8B on four cards",
        "QLoRA of Qwen 2.5 in fp16 on an L4",
        "QLoRA with half of the inputs dropped",
        "SimPO's gamma in DPO",
        "ZeRO-2 on one card",
        "ZeRO-3 from a file on one card",
        "ZeRO-3 on one card",
        "a complete dataset and a slice of it",
        "a dropout of 0.75 as text",
        "a file with copies of train rows",
        "a full checkpoint every five steps, kept without limit",
        "a layer that is not there among some that are",
        "a least rate without a cosine",
        "a local file has no split named test",
        "a local test file has no split named validation",
        "a nucleus for samples that are not generated",
        "a regular expression that matches no module",
        "a role that no row has and every end of turn",
        "a save between two evaluations",
        "a split of the first 0 rows",
        "a split that begins after the last row",
        "a thousand evaluations in an epoch",
        "a warmup ratio of 0.95",
        "a warmup ratio of 1",
        "a weight that was meant for the loss",
        "all rows are shorter than min_sample_len",
        "all weights at 1e-8, an exponent too far",
        "all weights at 2e-4 as text",
        "all weights of 0.5B on an A100",
        "all weights of 7B at 1e-3",
        "all weights of 8B at LoRA's 2e-4",
        "all weights of 8B at each step",
        "alpha 1 with rank 64",
        "alpha 256 with rank 8",
        "alpha as text",
        "an empty list of roles to train",
        "an end of turn that the vocabulary spells in pieces",
        "an override of a token that the tokenizer does not have",
        "another name for the same file",
        "as many rows held out as there are",
        "beta under its older name without preference training",
        "beta without preference training",
        "eight cards and five packed rows",
        "every answer is empty",
        "every segment is masked",
        "every turn says train false",
        "excess_length_strategy raise and one row that is too long",
        "experts in a dense model",
        "false as text on an L40S",
        "field_instruction names a column that no row has",
        "field_output names a column that no row has, so every answer is empty",
        "five hundred full checkpoints in an epoch",
        "five percent of forty rows",
        "five percent of nine rows",
        "four of five local rows are too long",
        "fused LoRA kernels without an adapter",
        "greater is better for early stopping on the loss",
        "greater is better for eval_loss",
        "greater is better without a metric, which is then the loss",
        "layer 99 of 32",
        "long rows and a short sequence",
        "messages with text instead of content",
        "modules to save that are called otherwise",
        "more pretraining of 8B at 5e-3",
        "more time for evaluating than for training",
        "names of MPT in a local Llama",
        "new tokens in a local vocabulary with LoRA",
        "new tokens with LoRA and untrained embeddings",
        "nine of ten steps warm up",
        "no role to train and every end of turn",
        "no role to train and no end of turn",
        "no role to train and the last end of turn, which only a trained turn sets",
        "no room for the template itself",
        "one of a hundred shards",
        "one of eight target modules is of another architecture",
        "one of fifty shards of all datasets",
        "only the output projection of Phi is trained",
        "only the rank and alpha are left, with a rate of full fine-tuning",
        "packed under a kernel that Axolotl does not know",
        "packed under fp8 attention",
        "packed without an attention implementation",
        "patience 10 and 6 evaluations",
        "patience 5 in a short run",
        "patience 8 and an evaluation in each quarter",
        "patience in DPO, which has no such callback",
        "patience without evaluations",
        "pictures, and ChatML's end of turn as padding",
        "pictures, and Gemma's end of turn as padding",
        "pictures, and Llama's end of turn as padding",
        "preference columns under other names",
        "q, k and v of Llama in Phi, which fuses them",
        "rank and alpha in each other's place",
        "restarts without ReLoRA",
        "rewards without rl",
        "roles_to_train names a role that no row has",
        "roles_to_train next to train_on_inputs",
        "roles_to_train with a capital letter",
        "rows of 100 tokens padded to 8,192",
        "rows with the role model, which is not one of Axolotl's",
        "rows without an assistant",
        "rsLoRA with alpha twice the rank",
        "segments with labels next to train_on_inputs",
        "sharegpt mappings the wrong way round",
        "sharegpt rows whose speaker is mapped but not their words",
        "sharegpt rows without property mappings",
        "short local rows padded",
        "target modules without an adapter",
        "the adapter line was lost, and everything else is LoRA's",
        "the attention of Falcon in a Mistral",
        "the attention of GPT-2 in a Llama",
        "the best model by F1, saved when it is best",
        "the best model by a misspelt loss",
        "the best model by accuracy",
        "the best model by the training loss",
        "the best model without evaluations",
        "the dataset's shard after the last one",
        "the embeddings' rate of LoRA+ without its ratio",
        "the first rows of a hub dataset that is trained on completely",
        "the head is called lm_head",
        "the label of KTO under another name",
        "the last layer counted from 1",
        "the last tenth that the train split has, too",
        "the layers of GPT-2 under their own name",
        "the manifest counts 120 tokens a row",
        "the manifest counts 49,700 of 50,000 rows as dropped",
        "the manifest counts a third of a domain dataset as dropped",
        "the manifest counts evaluation rows that are trained on",
        "the manifest counts no trained token",
        "the manifest counts two trained tokens a row",
        "the packing estimate without packing",
        "the same file in two entries",
        "the same file twice",
        "the same hub dataset with and without its default split",
        "the shard after the last one",
        "the shortest row that is wanted is longer than a sequence",
        "the streamed text column is called otherwise",
        "the test file is empty",
        "the test rows are of another format",
        "the third of two hundred shards",
        "the version of FSDP without FSDP",
        "the warmup of a small local run",
        "three evaluations and one save in an epoch",
        "three rows",
        "tiles of an MLP that is not tiled",
        "train_on_inputs for preference pairs",
        "unfrozen layers after the last one",
        "unfrozen parameters of GPT-2 in a Llama",
        "vLLM's settings without GRPO",
        "weight decay of 0.6 for DPO",
        "weight decay of 0.9",
        "weight decay of 1 for all weights",
    }
)
"""Wasteful cases that no rule reports yet. A case that is reported has to leave this list."""
SHARDS = ("deepspeed", "fsdp_config", "context_parallel_size", "tensor_parallel_size", "dp_shard_size")
SHIPPED = ("training", "experiment", "lora")
RIGHTLY_REPORTED = {
    "checkpoints_and_profile": ["gc_steps"],
    "deepspeed_by_path": ["warmup_steps=20"],
    "dpo_chatml_intel": ["dpo_beta"],
    "ipo": ["rl=ipo"],
    "qlora_packed_1b": ["dataset_processes", "flash_attention"],
    "segments_input_output": ["save_steps=40"],
    "simpo": ["gradient_checkpointing=offload"],
}
"""Good configs with deprecated keys, or that train on so few rows here that they end before a step they name."""
NOT_LEFT_ALONE: frozenset[str] = frozenset()
"""Sound cases that a rule reports by mistake, or that are still argued about."""


def _findings(case: Case, requested: Experiment) -> list[Finding]:
    """As a launch reports them once the dataset is prepared, or before, if the case has no `prepared`."""
    preflight = Preflight([requested], Verdicts(None, ""), longest_rows=[case.manifest.longest_row])
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
    """On one card, or on eight if it shards the model."""
    monkeypatch.chdir(good_folder)
    config = as_a_run_has_it(as_axolotl_reads(file))
    cards = 8 if any(config.get(key) for key in SHARDS) else 1
    preflight = Preflight([experiment(config, gpu=Gpu("h100", cards))], Verdicts(None, ""), longest_rows=[None])
    texts = [one.finding.text for one in preflight.findings()]
    expected = RIGHTLY_REPORTED.get(file.stem, [])
    assert len(texts) == len(expected), texts
    assert all(any(piece in text for text in texts) for piece in expected), texts


@pytest.fixture(scope="module")
def good_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return good_configs_in(tmp_path_factory.mktemp("good"))


def test_what_is_shipped_is_left_alone(ask: Callable[..., Any]) -> None:
    vocabulary = read_vocabulary()
    requested = [ask(f"{group}={name}").experiments[0] for group in SHIPPED for name in vocabulary.groups[group]]
    preflight = Preflight(
        requested, Verdicts(None, "")
    )  # memory is estimated once rows are known, and has its own tests
    assert len(requested) >= 10
    assert [one.finding.text for one in preflight.findings()] == []


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
    answers = [answer for question in questions_of(experiment_of(case)) if (answer := verdicts.get(question))]
    assert answers
    refusals = [problem for answer in answers for problem in answer["problems"]]
    by_its_schema = [problem["message"] for problem in refusals if "kind" not in problem]
    assert (by_its_schema == []) is case.accepted, by_its_schema


@pytest.mark.slow
@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in WASTEFUL if not case.accepted])
def test_what_axolotl_refuses_needs_no_rule_of_ours(verdicts: Verdicts, case: Case) -> None:
    preflight = Preflight([experiment_of(case)], verdicts, longest_rows=[case.manifest.longest_row])
    texts = [one.finding.text for one in preflight.findings()]
    assert any(case.is_reported_by(one.finding) for one in preflight.findings()), texts
