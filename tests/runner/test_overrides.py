"""Names as people know them become Hydra's overrides, with unchanged values."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from runner.config.overrides import (
    ELSEWHERE,
    ELSEWHERE_IN_NODES,
    axis,
    canonical,
    canonical_all,
    in_a_shell,
    spoken,
    written,
)
from runner.config.vocabulary import read_vocabulary
from runner.errors import SweepError

VOCABULARY = read_vocabulary()


@pytest.mark.parametrize(
    ("said", "hydra"),
    [
        ("learning_rate=1e-3", "++axolotl.learning_rate=1e-3"),
        ("+learning_rate=1e-3", "++axolotl.learning_rate=1e-3"),
        ("++learning_rate=1e-3", "++axolotl.learning_rate=1e-3"),
        ("~learning_rate", "~axolotl.learning_rate"),
        ("datasets.0.path=x", "++axolotl.datasets.0.path=x"),
        ("axolotl.learning_rate=1e-3,2e-3", "++axolotl.learning_rate=1e-3,2e-3"),
        ("model_type=LlamaForCausalLM", "++axolotl.model_type=LlamaForCausalLM"),
        ("deepspeed=zero2", "deepspeed=zero2"),
        ("axolotl.deepspeed=ds.json", "++axolotl.deepspeed=ds.json"),
        ("deepspeed.zero_optimization.stage=3", "++axolotl.deepspeed.zero_optimization.stage=3"),
        ("lora=r8,r16", "lora=r8,r16"),
        ("gpu=cpu", "gpu=cpu"),
        ("gpu.count=4", "gpu.count=4"),
        ("+tracking.tags.0=a", "+tracking.tags.0=a"),
        ("store=/a=b", "store=/a=b"),
        ("sweeps=tiny_grid", "+sweeps=tiny_grid"),
        ("+experiment=llama3_8b_alpaca", "experiment=llama3_8b_alpaca"),
        ("lora@axolotl.other=r8", "lora@axolotl.other=r8"),
        ("hydra.sweeper.params.lora=x", "hydra.sweeper.params.lora=x"),
        ("hydra/sweeper=basic", "hydra/sweeper=basic"),
        ("~hydra.sweeper.params.lora", "~hydra.sweeper.params.lora"),
    ],
)
def test_an_override_takes_hydras_form_and_keeps_it(said: str, hydra: str) -> None:
    assert canonical(said, VOCABULARY) == hydra
    assert canonical(hydra, VOCABULARY) == hydra


@pytest.mark.parametrize(
    ("said", "way_out"),
    [
        ("+swep=x", "sweeps"),
        ("lora=16", "r16"),
        ("lora=r8,16", "r16"),
        ("deepspeed=null", "none, zero1, zero2, zero3"),
        ("+experimant=smoke", "experiment"),
        ("learnig_rate=1", "learning_rate"),
        ("+learnin_rate=1", "learning_rate"),
        ("axolotl.learnig_rate=1", "learning_rate"),
        ("++axolotl.learnig_rate=1", "learning_rate"),
        ("~learnig_rate", "learning_rate"),
        ("gpu.cuont=4", "count"),
        ("+gpu.cuont=4", "count"),
        ("datasets.0.pathh=x", "path"),
        ("lora.r=8", "lora_r"),
        ("modle@axolotl=x", "model"),
        ("lora", "key=value"),
        ("~axolotl", "~KEY"),
        ("~datasets.0", "datasets=\\[...\\]"),
        ("~hydra.searchpath.0", "hydra.searchpath="),
        ("axolotl=x", "complete config"),
        ("lora=[r8,r16]", "-m lora=r8,r16"),
    ],
)
def test_a_name_that_means_nothing_is_refused_with_the_one_that_was_meant(said: str, way_out: str) -> None:
    with pytest.raises(SweepError, match=way_out):
        canonical(said, VOCABULARY)


def test_all_unknown_names_are_reported_at_once() -> None:
    with pytest.raises(SweepError) as refused:
        canonical_all(["learnig_rate=1", "lora=r8", "gpu.cuont=4", "datasets.0.pathh=x"], VOCABULARY)
    assert all(name in str(refused.value) for name in ("learnig_rate=1", "gpu.cuont=4", "datasets.0.pathh=x"))
    assert "r8" not in str(refused.value)


def test_only_one_name_is_both_a_group_and_a_key_of_axolotl() -> None:
    """A second one would have to be documented for users, like deepspeed."""
    fields = VOCABULARY.fields.everywhere.keys()
    assert fields & VOCABULARY.groups.keys() == {"deepspeed"}
    assert not fields & VOCABULARY.nodes.keys()


@pytest.mark.parametrize("said", ["learning_rate=1", "lora=r8", "axolotl.deepspeed=x", "~learning_rate", "+sweeps=a"])
def test_what_is_spoken_means_the_same(said: str) -> None:
    hydra = canonical(said, VOCABULARY)
    assert spoken(hydra, VOCABULARY) == said
    assert canonical(spoken(hydra, VOCABULARY), VOCABULARY) == hydra


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), max_size=12)
tricky = st.sampled_from(
    ["", "1e-3", "true", "null", "'", '"', "\\", "\\'", "a\\", "<|end|>", "train[:10]", "a,b", "-1", "x=y"]
)
quoting = st.text("'\"\\ x", max_size=6)
scalars = (
    texts | tricky | quoting | st.booleans() | st.none() | st.integers(-(10**12), 10**12) | st.floats(allow_nan=False)
)
keys = st.from_regex(r"[a-z_][a-z0-9_ :,=]{0,8}[a-z0-9]", fullmatch=True)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=6
)


@given(values)
def test_a_written_value_reads_back_equal(value: Any) -> None:
    parsed = OverridesParser.create().parse_override(f"key={written(value)}")
    assert not parsed.is_sweep_override()
    assert _typed(parsed.value()) == _typed(value)


@given(st.lists(scalars, min_size=2, max_size=4))
def test_a_list_in_a_sweep_file_is_an_axis_of_just_these_values(choices: list[Any]) -> None:
    parsed = OverridesParser.create().parse_override(axis("key", choices))
    assert parsed.is_sweep_override()
    again = [OverridesParser.create().parse_override(f"key={text}").value() for text in parsed.sweep_string_iterator()]
    assert _typed(again) == _typed(choices)


def _typed(value: Any) -> Any:
    """1, 1.0 and True are equal in Python, but not to Axolotl."""
    match value:
        case list():
            return [_typed(item) for item in value]
        case dict():
            return {key: _typed(item) for key, item in value.items()}
    return type(value), value


def test_an_empty_axis_is_a_mistake() -> None:
    with pytest.raises(SweepError, match="nothing to run"):
        axis("lora", [])


@pytest.mark.parametrize("value", ["<|end|>", "train[:100]", 'say "hi"', "${f:1,${x}}", "it's", "back\\slash"])
def test_the_quoted_form_that_is_offered_works_in_a_shell(value: str) -> None:
    (argument,) = shlex.split(in_a_shell(f"chat_template_jinja={value}"))
    assert OverridesParser.create().parse_override(argument).value() == value


@pytest.mark.parametrize(
    ("word", "here"),
    [
        ("sweeps/rates.yaml", "+sweeps=rates"),
        ("+sweeps/rates", "+sweeps=rates"),
        ("my-axolotl.yml", "base=my-axolotl.yml"),
    ],
)
def test_a_file_among_the_overrides_is_refused_with_the_override_for_it(word: str, here: str) -> None:
    with pytest.raises(SweepError, match=rf"is not an override\..*: {re.escape(here)}$"):
        canonical(word, VOCABULARY)
    canonical(here, VOCABULARY)


@pytest.mark.parametrize(("elsewhere", "here"), ELSEWHERE.items())
def test_another_programs_name_for_a_key_is_refused_with_axolotls_name(elsewhere: str, here: str) -> None:
    with pytest.raises(SweepError, match=f"Did you mean {here}\\?"):
        canonical(f"{elsewhere}=1", VOCABULARY)
    canonical(f"{here}=1", VOCABULARY)


@pytest.mark.parametrize("elsewhere", ELSEWHERE_IN_NODES)
def test_a_key_that_would_be_expected_elsewhere_leads_to_the_one_that_is(elsewhere: str) -> None:
    here = ELSEWHERE_IN_NODES[elsewhere]
    with pytest.raises(SweepError, match=re.escape(f"Did you mean {here}?")):
        canonical(f"{elsewhere}=1", VOCABULARY)
    for key in re.findall(r"[\w.]+\w(?= or | \(|$)", here):
        assert key in VOCABULARY.groups or canonical(f"{key}=1", VOCABULARY)
