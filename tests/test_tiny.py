"""The tiny task that every first run trains on: its files are those that its script writes, and its questions are
fair."""

import json
import runpy
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

TINY = Path(__file__).parent.parent / "tiny"


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (TINY / "data" / name).read_text(encoding="utf-8").splitlines()]


def asked_and_answered() -> list[tuple[str, str]]:
    """(prompt, answer) of every training row."""
    pairs = []
    for row in rows("train.jsonl"):
        user, assistant = row["messages"]
        assert (user["role"], assistant["role"]) == ("user", "assistant")
        pairs.append((user["content"], assistant["content"]))
    return pairs


def model_json(name: str) -> dict[str, Any]:
    return dict(json.loads((TINY / "model" / name).read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", ["train.jsonl", "prompts.jsonl"])
def test_the_committed_data_is_what_its_maker_makes(name: str, tmp_path: Path) -> None:
    maker = [sys.executable, "-I", str(TINY / "make_data.py"), "--out", str(tmp_path)]
    subprocess.run(maker, check=True, capture_output=True)
    assert (tmp_path / name).read_bytes() == (TINY / "data" / name).read_bytes()


def test_held_out_prompts_are_not_trained_on() -> None:
    trained = {prompt for prompt, _ in asked_and_answered()}
    assert trained.isdisjoint(str(row["prompt"]) for row in rows("prompts.jsonl"))


def test_no_question_is_asked_twice() -> None:
    prompts = [prompt for prompt, _ in asked_and_answered()] + [str(row["prompt"]) for row in rows("prompts.jsonl")]
    assert [prompt for prompt, count in Counter(prompts).items() if count > 1] == []


def test_training_teaches_the_one_right_answer_to_every_held_out_prompt() -> None:
    """In whatever words training rows ask for the fact of a held-out prompt, they have the same answer."""
    maker = runpy.run_path(str(TINY / "make_data.py"))
    facts, phrasings = maker["directory"](maker["SEED"]), maker["phrasings"]
    answers: dict[str, set[str]] = {}
    for prompt, answer in asked_and_answered():
        answers.setdefault(prompt, set()).add(answer)
    for row in rows("prompts.jsonl"):
        asked = str(row["prompt"]).removeprefix(maker["NEW_OPENING"])
        [fact] = [fact for fact in facts if asked in phrasings(fact)]
        taught = set().union(*(answers.get(prompt, set()) for prompt in phrasings(fact)))
        assert taught == {row["answer"]}


def test_no_value_is_a_better_guess_than_another() -> None:
    assert set(Counter(row["answer"] for row in rows("prompts.jsonl")).values()) == {4}


def test_half_of_the_held_out_prompts_begin_as_no_training_row_does() -> None:
    opening = runpy.run_path(str(TINY / "make_data.py"))["NEW_OPENING"]
    assert not any(opening in prompt for prompt, _ in asked_and_answered())
    assert sum(str(row["prompt"]).startswith(opening) for row in rows("prompts.jsonl")) == 64


def test_the_evaluation_share_leaves_a_stable_loss() -> None:
    train = rows("train.jsonl")
    assert 1500 <= len(train) <= 2000
    assert len(train) * 0.05 >= 64


def test_the_weights_are_small_enough_to_ship() -> None:
    assert (TINY / "model" / "model.safetensors").stat().st_size < 700_000


def test_the_tokenizer_ends_turns_with_a_token_that_is_not_padding() -> None:
    tokenizer = model_json("tokenizer_config.json")
    ids = {token["content"]: token["id"] for token in model_json("tokenizer.json")["added_tokens"]}
    config, generation = model_json("config.json"), model_json("generation_config.json")
    assert tokenizer["eos_token"] != tokenizer["pad_token"]
    for name in ("bos", "eos", "pad"):
        assert ids[tokenizer[f"{name}_token"]] == config[f"{name}_token_id"] == generation[f"{name}_token_id"]
    assert "eos_token" in (TINY / "model" / "chat_template.jinja").read_text(encoding="utf-8")


def test_every_answer_is_one_token() -> None:
    """So the loss is about the facts, and not about spelling."""
    vocabulary = model_json("tokenizer.json")["model"]["vocab"]
    assert {str(row["answer"]) for row in rows("prompts.jsonl")} <= set(vocabulary)
