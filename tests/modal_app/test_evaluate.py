"""The config that an evaluate step gives to Axolotl, and the names of what it measures. The evaluation itself is tested
end to end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from modal_app.oneshot.tasks import said_of
from modal_app.process.attempt import environment
from modal_app.process.failures import StepFailed
from modal_app.steps.evaluate import named, of_tasks, rated_by, settings_text
from modal_app.store.layout import Store
from modal_app.store.step import Step, StepKind
from tests.modal_app.steps import CONFIG

FULL = {name: value for name, value in CONFIG.items() if not name.startswith(("adapter", "lora_"))}


def said(**results: dict[str, Any]) -> dict[str, Any]:
    """What the harness returns."""
    return {
        "results": results,
        "group_subtasks": {"mmlu": ["mmlu_law", "mmlu_art"]},
        "higher_is_better": {"mmlu": {"acc": True}, "quiz": {"ppl": False}},
        "n-samples": {"quiz": {"original": 9, "effective": 5}},
    }


def test_a_run_is_rated_with_its_adapter_and_its_base_model_without_any() -> None:
    assert rated_by(CONFIG, adapter=Path("../model"))["lora_model_dir"] == "../model"
    base = rated_by(CONFIG)
    assert "lora_model_dir" not in base
    assert "adapter" not in base


@pytest.mark.parametrize("packing", [{}, {"sample_packing": True, "eval_sample_packing": False}])
def test_the_rows_are_laid_out_as_they_were_prepared(packing: dict[str, bool]) -> None:
    """What the config lacks must stay absent, since it would change Axolotl's name for the rows."""
    kept = rated_by(CONFIG | packing, adapter=Path("../model"))
    assert {name: value for name, value in kept.items() if "packing" in name} == packing


def test_other_weights_are_rated_with_the_tokenizer_that_made_the_rows() -> None:
    kept = rated_by(FULL, weights=Path("../model"))
    assert (kept["base_model"], kept["tokenizer_config"]) == ("../model", FULL["base_model"])
    own = FULL | {"tokenizer_config": "inputs/other", "revision_of_model": "abc"}
    kept = rated_by(own, weights=Path("../model"))
    assert (kept["tokenizer_config"], kept["revision_of_model"]) == ("inputs/other", "abc")


def test_what_spreads_a_training_over_gpus_is_left_out() -> None:
    assert "deepspeed" not in rated_by(CONFIG | {"deepspeed": "zero2.json"}, adapter=Path("a"))


def test_a_group_counts_as_one_and_its_parts_stand_apart() -> None:
    facts = of_tasks(
        said(
            mmlu={"alias": "mmlu", "acc,none": 0.5, "acc_stderr,none": 0.01},
            mmlu_law={"acc,none": 0.4, "acc_stderr,none": "N/A"},
            mmlu_art={"acc,none": 0.6},
            quiz={"ppl,none": 7.5, "em,strict": 0.25, "odd,none": float("nan"), "samples": 5},
        ),
        {},
    )
    assert facts["metrics"] == {"tasks/mmlu/acc": 0.5, "tasks/quiz/ppl": 7.5, "tasks/quiz/em,strict": 0.25}
    assert facts["parts"] == {"tasks/mmlu_law/acc": 0.4, "tasks/mmlu_art/acc": 0.6}
    assert facts["stderr"] == {"tasks/mmlu/acc": 0.01}
    assert facts["higher_is_better"] == {"tasks/mmlu/acc": True, "tasks/quiz/ppl": False}
    assert facts["documents"] == {"quiz": 5}


def test_the_place_of_a_tasks_documents_is_named_only_for_the_harness_own_tasks() -> None:
    configs = {
        "quiz": {"dataset_path": "maker/quiz", "dataset_name": "easy", "validation_split": "validation"},
        "files": {"dataset_path": "json", "test_split": "test"},
        "made_up": {"test_split": "test"},
    }
    results = said(quiz={"ppl,none": 7.5}) | {"configs": configs}
    told = {"quiz": {"path": "maker/quiz", "config": "easy", "split": "validation"}}
    assert of_tasks(results, {})["datasets"] == told
    assert of_tasks(results, {"include": "inputs/abc"})["datasets"] == {}, "it may be a user's private file"


def test_a_task_with_other_settings_has_another_name() -> None:
    facts = of_tasks(said(quiz={"ppl,none": 7.5}), {"limit": 5, "num_fewshot": None, "chat_template": False})
    assert facts["metrics"] == {"tasks/quiz@limit=5,plain/ppl": 7.5}
    assert facts["higher_is_better"] == {"tasks/quiz@limit=5,plain/ppl": False}
    assert settings_text({"limit": None, "num_fewshot": 0}) == "@fewshot=0"
    assert settings_text({"limit": None, "num_fewshot": None, "chat_template": True}) == ""


def test_a_filter_is_named_unless_it_is_none() -> None:
    assert named("arc_easy", "acc", "none") == "tasks/arc_easy/acc"
    assert named("gsm8k", "exact_match", "strict-match") == "tasks/gsm8k/exact_match,strict-match"


def test_a_harness_that_measures_nothing_has_failed() -> None:
    with pytest.raises(StepFailed, match="measured nothing"):
        of_tasks(said(quiz={"alias": "quiz", "acc,none": float("nan")}), {})


def test_unknown_tasks_are_reported_with_the_nearest() -> None:
    told = said_of({"arc_eas": ["arc_easy", "arc"], "x": []})
    assert told == "The lm-evaluation-harness has no task arc_eas (did you mean arc_easy or arc?), x."


@pytest.mark.parametrize(
    ("kind", "options", "offline"),
    [
        (StepKind.TRAIN, {}, True),
        (StepKind.MERGE, {}, True),
        (StepKind.EVALUATE, {}, True),
        (StepKind.EVALUATE, {"tasks": ["quiz"]}, False),
    ],
)
def test_only_a_tasks_dataset_may_be_requested_from_the_hub(
    kind: StepKind, options: dict[str, Any], offline: bool, tmp_path: Path
) -> None:
    step = Step(kind, "run/own", CONFIG, "data", run="run", options=options)
    folder = Store(tmp_path).folder(kind, step.key)
    assert (environment(step, folder, folder.attempt(1)).get("HF_HUB_OFFLINE") == "1") is offline
