"""A key that the user sets displaces the default that excludes it, wherever it is set; two keys that the user sets both
stay."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runner.errors import SweepError
from runner.keys.identity import identify_run
from tests.conftest import refuse

SAVES = ("save_steps", "saves_per_epoch", "save_strategy")
ATTENTION = ("attn_implementation", "flash_attention", "sdp_attention")
EVALS = ("eval_steps", "evals_per_epoch", "eval_strategy")
GLOBAL = "# @package _global_\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's project."""
    monkeypatch.chdir(tmp_path)
    files = {
        "conf/experiment/mine.yaml": f"{GLOBAL}axolotl: {{save_steps: 20}}\n",
        "conf/experiment/longer.yaml": f"{GLOBAL}defaults: [mine, _self_]\naxolotl: {{max_steps: 9}}\n",
        "conf/experiment/both.yaml": f"{GLOBAL}axolotl: {{save_steps: 20, saves_per_epoch: 2}}\n",
        "conf/training/often.yaml": "# @package axolotl\ndefaults: [default, _self_]\nsave_steps: 20\n",
        "conf/training/spaced.yaml": "\n#@package axolotl\ndefaults: [default, _self_]\nsave_steps: 20\n",
        "conf/base/kept.yaml": "# @package axolotl\nbase_model: a/b\nsave_steps: 20\n",
        "conf/experiment/kept.yaml": f"{GLOBAL}defaults: [_self_, override /base: kept, override /training: null]\n",
        "sweeps/axis.yaml": f"{GLOBAL}hydra: {{sweeper: {{params: {{save_steps: [20]}}}}}}\n",
        "sweeps/body.yaml": f"{GLOBAL}hydra: {{sweeper: {{params: {{seed: [1]}}}}}}\nsave_steps: 20\n",
        "sweeps/node.yaml": f"{GLOBAL}hydra: {{sweeper: {{params: {{seed: [1]}}}}}}\naxolotl: {{save_steps: 20}}\n",
        "old.yml": "base_model: a/b\nflash_attention: true\n",
        "conf/base/old.yaml": "# @package axolotl\nbase_model: a/b\nflash_attention: true\n",
        "conf/experiment/old.yaml": f"{GLOBAL}defaults: [_self_, override /base: old, override /training: null]\n",
        "conf/experiment/flash.yaml": f"{GLOBAL}axolotl: {{flash_attention: true}}\n",
        "both.yml": "base_model: a/b\nflash_attention: true\nattn_implementation: sdpa\n",
        "base.yml": "base_model: a/b\ndatasets: [{path: a/c, type: alpaca}]\nsaves_per_epoch: 2\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def given(axolotl: Any, *keys: str) -> dict[str, Any]:
    return {key: axolotl[key] for key in keys if axolotl.get(key)}


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    "line",
    [
        "save_steps=20",
        "axolotl.save_steps=20",
        "-m save_steps=20 lora=r8",
        "-m hydra/sweeper=basic save_steps=20",
        "-m hydra/launcher=basic save_steps=20",
        "experiment=mine",
        "experiment=longer",
        "training=often",
        "training=spaced",
        "-m +sweeps=axis",
        "-m +sweeps=body",
        "-m +sweeps=node",
    ],
)
def test_a_key_displaces_our_default_wherever_it_is_given(ask: Callable[..., Any], line: str) -> None:
    for one in ask(*line.split()).experiments:
        assert given(one.axolotl, *SAVES) == {"save_steps": 20}
        assert given(one.axolotl, *EVALS) == {"evals_per_epoch": 4}


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("line", "keys", "left"),
    [
        ("save_steps=20 saves_per_epoch=2", SAVES, {"save_steps": 20, "saves_per_epoch": 2}),
        ("experiment=both", SAVES, {"save_steps": 20, "saves_per_epoch": 2}),
        ("experiment=mine saves_per_epoch=2", SAVES, {"save_steps": 20, "saves_per_epoch": 2}),
        ("base=base.yml save_steps=20", SAVES, {"save_steps": 20, "saves_per_epoch": 2}),
        ("experiment=kept", SAVES, {"save_steps": 20}),
        ("experiment=kept saves_per_epoch=2", SAVES, {"save_steps": 20, "saves_per_epoch": 2}),
        ("experiment=kept training=default", SAVES, {"save_steps": 20, "saves_per_epoch": 4}),
        ("base=base.yml training=sanity", SAVES, {"save_steps": 20, "saves_per_epoch": None}),
        ("save_strategy=epoch", SAVES, {"save_strategy": "epoch"}),
        ("save_strategy=steps", SAVES, {"saves_per_epoch": 4, "save_strategy": "steps"}),
        ("eval_strategy=no", EVALS, {"eval_strategy": "no"}),
        ("training=sanity evals_per_epoch=2", EVALS, {"evals_per_epoch": 2}),
        ("warmup_steps=5", ("warmup_steps", "warmup_ratio"), {"warmup_steps": 5}),
        ("warmup_steps=0", ("warmup_steps", "warmup_ratio"), {"warmup_ratio": 0.1}),
        ("batch_size=32", ("batch_size", "gradient_accumulation_steps"), {"batch_size": 32}),
    ],
)
def test_what_is_left_of_keys_that_exclude_each_other(
    ask: Callable[..., Any], line: str, keys: tuple[str, ...], left: dict[str, Any]
) -> None:
    (one,) = ask(*line.split()).experiments
    assert given(one.axolotl, *keys) == {key: value for key, value in left.items() if value}


FLASH = {"flash_attention": True}
SDPA = {"attn_implementation": "sdpa"}


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("line", "left"),
    [
        ("base=old.yml gpu=cpu", SDPA),
        ("base=old.yml gpu=t4", SDPA),
        ("experiment=old gpu=cpu", SDPA),
        ("base=old.yml gpu=h100", FLASH),
        ("base=old.yml gpu=h100 training=default", {"attn_implementation": "flash_attention_2"}),
        ("base=old.yml attn_implementation=sdpa", SDPA),
        ("base=both.yml", FLASH | SDPA),
        ("base=both.yml gpu=cpu", SDPA),
        ("experiment=flash gpu=cpu", SDPA),
        ("experiment=flash gpu=h100", FLASH),
        ("experiment=flash attn_implementation=sdpa", SDPA),
        ("gpu=h100 sdp_attention=true", {"sdp_attention": True}),
        ("gpu=h100 flash_attention=false", {"attn_implementation": "flash_attention_2"}),
        ("flash_attention=true attn_implementation=sdpa", FLASH | SDPA),
    ],
)
def test_one_of_attn_implementation_and_the_flags_before_it_is_left(
    ask: Callable[..., Any], line: str, left: dict[str, Any]
) -> None:
    (one,) = ask(*line.split()).experiments
    assert given(one.axolotl, *ATTENTION) == left


def test_the_run_is_the_one_in_which_the_default_was_removed_by_hand(ask: Callable[..., Any]) -> None:
    by_hand, displaced = (
        identify_run(ask("save_steps=20", *more).experiments[0], [], trainer_lock="0")
        for more in (["~saves_per_epoch"], [])
    )
    assert by_hand.key == displaced.key


@pytest.mark.parametrize(
    ("line", "way_out"),
    [
        ("datasets.1.path=x.jsonl", r"datasets.1.path=x.jsonl: datasets has no such entry.*'datasets=\["),
        ("-m datasets.1.path=x,y lora=r8", r"datasets has no such entry"),
        ("model=org/name", r"'~model' base_model=org/name"),
        ("-m model=org/name,tiny", r"'~model' base_model=org/name"),
        ("dataset=org/name", r"'datasets=\[\{path: org/name, type: chat_template\}\]'"),
        ("base_model=${oc.env:NO_SUCH}", r"'NO_SUCH' not found. Set the variable, or write a default"),
        ("-m base_model=${oc.env:NO_SUCH} lora=r8,r16", r"axolotl.base_model .*'NO_SUCH' not found. Set the variable"),
    ],
)
def test_a_key_that_cannot_be_set_names_the_way_out(ask: Callable[..., Any], line: str, way_out: str) -> None:
    with pytest.raises(SweepError, match=way_out):
        ask(*line.split())


def test_a_key_of_the_hub_names_the_verb_that_pushes(ask: Callable[..., Any]) -> None:
    with pytest.raises(SweepError, match="axosweep push RUN OWNER/NAME"):
        refuse(ask("hub_model_id=me/mine").experiments)
