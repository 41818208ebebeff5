"""How a model gets questions, with the real Axolotl: one process of the trainer's Python collects everything that is
checked here."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from runner.environment import trainer_environment
from tests.modal_app.steps import ENVIRONMENT, PACKAGE

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    done = subprocess.run(
        [trainer_environment.find(), HERE / "generation_cases.py"],
        cwd=tmp_path_factory.mktemp("generation"),
        env={**ENVIRONMENT, "PYTHONPATH": str(PACKAGE.parent), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


def test_prompts_of_any_length_are_answered_together_as_they_are_alone(found: dict[str, Any]) -> None:
    assert found["batching"]["lengths"] > 20
    assert found["batching"]["together"] == found["batching"]["alone"]
    assert len(set(found["batching"]["together"])) > 5


def test_a_draw_is_the_same_for_the_same_seed_and_another_for_another(found: dict[str, Any]) -> None:
    draws = found["drawing"]["draws"]
    assert draws["first"] == draws["again"]
    assert draws["first"] != draws["other"]
    assert draws["first"] != draws["greedy"]


def test_an_answer_is_what_comes_before_its_end_and_says_when_it_was_cut(found: dict[str, Any]) -> None:
    assert found["drawing"]["cut"] == [True, 1]
    cut, tokens, text = found["drawing"]["whole"]
    assert (cut, tokens) == (False, 2)
    assert text
    assert "<|" not in text


def test_a_prompt_that_leaves_no_room_for_an_answer_is_named_by_its_number(found: dict[str, Any]) -> None:
    assert found["too_long"].startswith("prompt 2 has ")
    assert "the model reads 256 at most" in found["too_long"]


def test_the_chat_template_ends_where_the_answer_begins(found: dict[str, Any]) -> None:
    assert found["ids"].replace(" ", "").endswith("<|system|>T.<|end|><|user|>q<|end|><|assistant|>")
    assert found["ids"].count("<|begin|>") <= 1


def test_a_batch_is_of_about_one_length_and_of_so_many_tokens_at_most(found: dict[str, Any]) -> None:
    assert found["batches"][0] == [[1, 2, 0]]
    assert found["batches"][1] == [[0], [2], [1]]
    assert [len(batch) for batch in found["batches"][2]] == [64, 64, 2]


def test_a_prompt_near_the_end_of_the_context_does_not_cut_the_answers_of_shorter_ones(found: dict[str, Any]) -> None:
    assert found["batches"][3] == [[3], [1, 4], [2, 0]]


def test_without_a_chat_template_a_question_is_written_as_its_dataset_was(found: dict[str, Any]) -> None:
    alpaca, own, completion, jeopardy = (found["asked"][name] for name in ("alpaca", "own", "completion", "jeopardy"))
    assert alpaca[0].endswith("USER: q\nASSISTANT:")
    assert own[:2] == ["S. Q: q A:", "T.Q: q A:"]
    assert completion[0] == "q"
    assert "refused: this run was trained without a chat template, on a dataset of type jeopardy" in jeopardy[0]
    for system in (alpaca[1], completion[1]):
        assert system.endswith("its format has no place for a system message")
    for turns in (alpaca[2], own[2], completion[2]):
        assert turns.endswith("its format has no place for earlier turns")


def test_a_turn_ends_where_the_template_ends_it_whatever_the_tokenizer_ends_a_text_with(found: dict[str, Any]) -> None:
    assert set(found["ends"]) == {"<|end|>", "<|im_end|>"}


def test_a_base_model_that_the_run_quantizes_is_quantized_and_has_no_adapter(found: dict[str, Any]) -> None:
    assert "Linear8bitLt" in found["quantized"]
    assert not [name for name in found["quantized"] if "Lora" in name or "Peft" in name]
