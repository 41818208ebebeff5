"""The facts in a model file go into the experiment with that model, and never into one with another model."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from runner.config.overrides import canonical
from runner.config.shipped import shipped_root
from runner.config.vocabulary import read_vocabulary
from runner.errors import SweepError
from runner.keys.identity import identify_run


def test_the_tiny_models_facts_are_those_of_its_own_config(ask: Callable[..., Any]) -> None:
    (experiment,) = ask().experiments
    config = json.loads((shipped_root() / "tiny" / "model" / "config.json").read_text())
    facts = experiment.model
    assert (facts.layers, facts.hidden) == (config["num_hidden_layers"], config["hidden_size"])
    assert (facts.heads, facts.kv_heads) == (config["num_attention_heads"], config["num_key_value_heads"])
    assert (facts.head_dim, facts.ffn) == (config["head_dim"], config["intermediate_size"])
    assert (facts.vocabulary, facts.tied) == (config["vocab_size"], config["tie_word_embeddings"])
    assert facts.context == config["max_position_embeddings"]


def test_facts_do_not_outlive_a_change_of_the_model(ask: Callable[..., Any]) -> None:
    (experiment,) = ask("model=llama3_8b", "base_model=someone/else", "gpu=h100").experiments
    assert experiment.model is None


def test_facts_are_in_no_key(ask: Callable[..., Any]) -> None:
    (experiment,) = ask().experiments
    known = identify_run(experiment, (), trainer_lock="lock")
    unknown = identify_run(replace(experiment, model=None), (), trainer_lock="lock")
    assert known.key == unknown.key
    assert "parameters" not in known.config


def test_facts_are_not_set_on_the_command_line() -> None:
    with pytest.raises(SweepError, match=r"model\.layers"):
        canonical("model.layers=3", read_vocabulary())
