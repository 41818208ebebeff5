"""How Axolotl's verdicts are requested, remembered and reported, with a stand-in for the process that has Axolotl."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from modal_app.oneshot.user_modules import MISSING, NOT_LOADED
from modal_app.oneshot.validate import ANSWERS, QUESTIONS
from runner.environment.verdicts import Verdicts
from runner.errors import SweepError
from runner.preflight import quick_findings
from runner.preflight.findings import Severity
from runner.preflight.schema import questions_of, schema_findings
from runner.preflight.stage import Preflight
from runner.types import ExecutorChoice, Experiment, Gpu
from tests.modal_app.deployments import shipped
from tests.runner.builders import experiment

FINE: Mapping[str, Any] = {"problems": [], "warnings": []}


@dataclass
class Judge:
    """Gives every question the same answer, and records the questions."""

    answer: Mapping[str, Any] = field(default_factory=lambda: FINE)
    questions: list[Any] = field(default_factory=list)
    is_up: bool = True

    def validate(self, folder: Path) -> None:
        self.questions.append(json.loads((folder / QUESTIONS).read_text()))
        (folder / ANSWERS).write_text(json.dumps([self.answer] * len(self.questions[-1])))


def reported(
    axolotl: Mapping[str, Any], problems: Sequence[Mapping[str, Any]] = (), warnings: Sequence[str] = (), **rest: Any
) -> list[str]:
    one = experiment({"seed": 1, **axolotl}, **rest)
    verdicts, quick = Verdicts(None, ""), quick_findings(one)
    Preflight([one], verdicts).ask(Judge({"problems": problems, "warnings": warnings}), [one])
    return [finding.text for finding in schema_findings(one, questions_of(one), verdicts, quick)]


def test_an_answer_is_remembered_for_the_same_config_gpu_and_lock_only(tmp_path: Path) -> None:
    def ask(questions: Experiment, lock: str = "lock") -> int:
        judge, verdicts = Judge(), Verdicts(tmp_path / "verdicts.json", lock)
        Preflight([questions], verdicts).ask(judge, [questions])
        return len(judge.questions)

    one = experiment({"seed": 1}, gpu=Gpu("h100", 1))
    assert [ask(one), ask(one)] == [1, 0]
    assert ask(experiment({"seed": 2}, gpu=Gpu("h100", 1))) == 1
    assert ask(experiment({"seed": 1}, gpu=Gpu("h100", 2))) == 1
    assert ask(experiment({"seed": 1}, gpu=Gpu("l4", 1))) == 1
    assert ask(one, lock="newer") == 1


@pytest.mark.parametrize(
    "named",
    [
        {"deepspeed": "{file}"},
        {"chat_template_jinja": "{file}"},
        {"datasets": [{"path": "a.jsonl", "chat_template_jinja": "{file}"}]},
        {"test_datasets": [{"path": "a.jsonl", "chat_template_jinja": "{file}"}]},
        {"base_model": "{folder}", "processor_type": "AutoProcessor"},
    ],
)
def test_a_config_is_checked_again_when_a_file_has_changed_that_the_answer_depends_on(
    tmp_path: Path, named: Mapping[str, Any]
) -> None:
    file = tmp_path / "config.json"
    text = json.dumps({"seed": 1, **named}).replace("{file}", str(file)).replace("{folder}", str(tmp_path))
    one = experiment(json.loads(text), gpu=Gpu("h100", 1))
    judge, verdicts = Judge(), Verdicts(None, "lock")
    for content in ("{}", "{}", '{"zero_optimization": {"stage": 3}}'):
        file.write_text(content)
        Preflight([one], verdicts).ask(judge, [one])
    assert len(judge.questions) == 2


def test_runs_that_differ_in_nothing_axolotl_reads_are_checked_once() -> None:
    runs = [experiment({"seed": 1}, gpu=Gpu("h100", 1), overrides=[name]) for name in ("a", "b")]
    judge = Judge()
    Preflight(runs, Verdicts(None, "")).ask(judge, runs)
    assert len(judge.questions[0]) == 1


def test_every_gpu_that_a_run_may_get_is_checked() -> None:
    one = experiment({"seed": 1}, gpu=Gpu("h100", 2, fallback=("a100_80gb",)), executor=ExecutorChoice("modal"))
    found = {question.capabilities["compute_capability"]: question.capabilities for question in questions_of(one)}
    assert set(found) == {"sm_90", "sm_80"}
    assert (found["sm_90"]["fp8"], found["sm_80"]["fp8"]) == (True, False)
    assert {one["n_gpu"] for one in found.values()} == {2}


def test_a_number_of_gpus_that_is_none_is_a_finding_once() -> None:
    one = experiment({"seed": 1}, gpu=Gpu("h100", "two"))  # type: ignore[arg-type]
    assert [finding.key for finding in quick_findings(one)].count("gpu.count") == 1
    assert [question.capabilities["n_gpu"] for question in questions_of(one)] == [1], "Axolotl would refuse it, too"


def test_a_hub_model_is_checked_as_pinned_and_addresses_are_left_out() -> None:
    (question,) = questions_of(experiment({"base_model": "owner/name", "output_dir": "here"}))
    assert question.config["revision_of_model"] == "0" * 40
    assert "output_dir" not in question.config


def test_no_secret_is_given_away() -> None:
    config = {"swanlab_api_key": "hunter2", "deepspeed": {"comet": {"api_key": "hunter2"}}}
    (question,) = questions_of(experiment(config))
    assert "hunter2" not in json.dumps(question.as_dict())
    said = reported(config, [{"keys": ["deepspeed", "swanlab_api_key"], "message": "no"}])
    assert "hunter2" not in str(said)


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        (
            {"keys": ["bf16"], "message": "Input should be 'auto' or Input should be a valid boolean"},
            "bf16=maybe: expected 'auto' or a valid boolean.",
        ),
        (
            {"keys": ["datasets.0.path"], "message": "Input should be a valid string"},
            "datasets.0.path=7: expected a valid string.",
        ),
        ({"keys": ["nowhere"], "message": "Field required"}, "nowhere (not set): expected a value"),
        ({"keys": [], "message": "Something is wrong."}, "axolotl: Something is wrong."),
    ],
)
def test_axolotls_words_are_printed_with_what_was_seen(problem: Mapping[str, Any], said: str) -> None:
    config = {"bf16": "maybe", "datasets": [{"path": 7}], "plugins": ["axolotl.integrations.liger.LigerPlugin"]}
    (text,) = reported(config, [problem])
    assert text.startswith(said)


def test_of_two_keys_that_exclude_each_other_the_one_that_was_not_requested_is_removed() -> None:
    problem = {"keys": ["eval_steps", "evals_per_epoch"], "message": "They are mutually exclusive."}
    (text,) = reported({"eval_steps": 5, "evals_per_epoch": 4}, [problem], overrides=["eval_steps=5"])
    assert text == "eval_steps=5, evals_per_epoch=4: They are mutually exclusive. Remove one: ~evals_per_epoch."


def test_what_was_reported_in_our_words_is_not_reported_again() -> None:
    assert reported({"lora_r": -1}, [{"keys": ["lora_r"], "message": "It is too small."}]) == []
    assert reported({"dpo_beta": 0.1}, warnings=["dpo_beta is deprecated, use rl_beta instead"]) == []
    assert reported({}, warnings=["Auto-enabling LoRA kernel optimizations for faster training."]) == []
    assert len(reported({"sequence_len": 128}, warnings=["`sequence_len` is odd"])) == 1


def test_a_plugin_that_only_the_rented_image_has_is_not_an_error_here() -> None:
    problem = {"keys": ["plugins"], "message": "No module named 'x'", "kind": NOT_LOADED}
    for packages, severity in (([], Severity.ERROR), (["x==1"], Severity.WARNING)):
        one = experiment({"plugins": ["x.Y"]}, executor=ExecutorChoice("modal", modal=shipped(packages=packages)))
        verdicts = Verdicts(None, "")
        Preflight([one], verdicts).ask(Judge({"problems": [problem], "warnings": []}), [one])
        (finding,) = schema_findings(one, questions_of(one), verdicts)
        assert finding.severity is severity


def test_a_missing_package_is_refused_with_the_line_that_adds_it_and_accepted_with_it() -> None:
    fork = "cut-cross-entropy @ git+https://github.com/axolotl-ai-cloud/ml-cross-entropy@"
    problem = {"keys": ["plugins"], "message": "Install it", "kind": MISSING, "package": "cut_cross_entropy"}

    def told_on_modal(packages: Sequence[str]) -> list[str]:
        return reported({}, [problem], executor=ExecutorChoice("modal", modal=shipped(packages=list(packages))))

    (refusal,) = told_on_modal([])
    assert f"\"executor.modal.packages=['{fork}COMMIT']\". COMMIT" in refusal
    (here,) = reported({}, [problem])
    assert f"executor=modal \"executor.modal.packages=['{fork}COMMIT']\". COMMIT" in here
    assert told_on_modal([f"{fork}{'c' * 40}"]) == []
    assert told_on_modal(["htop==1"]) == [refusal]


@pytest.mark.parametrize("judge", [Judge({"problems": [], "warnings": ["`lora_r` is odd"]}), None])
def test_a_refusal_comes_with_the_notes_and_warnings(judge: Judge | None) -> None:
    one = experiment({"seed": 1, "optimizer": "adamw_torhc", "lora_r": 1, "dataset_processes": 4})
    console = Console(file=io.StringIO(), width=400)
    with pytest.raises(SweepError) as refused:
        Preflight([one], Verdicts(None, "")).refuse(console, lambda: judge)
    assert isinstance(console.file, io.StringIO)
    said = console.file.getvalue()
    assert said.count("note: dataset_processes=4") == 1
    assert ("lora_r" in said) == (judge is not None)
    assert "adamw_torhc" in (said if judge else str(refused.value))


def test_a_memory_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    (tmp_path / "verdicts.json").write_text("{")
    one = experiment({"seed": 1})
    assert Preflight([one], Verdicts(tmp_path / "verdicts.json", "")).unanswered([one])
