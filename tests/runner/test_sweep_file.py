from pathlib import Path

import pytest

from runner.config.sweep_file import body_overrides
from runner.config.vocabulary import read_vocabulary
from runner.errors import SweepError


def body(tmp_path: Path, text: str) -> list[str]:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    return body_overrides(file, read_vocabulary())


def test_axolotl_keys_in_the_body_are_said_as_on_the_command_line(tmp_path: Path) -> None:
    text = (
        "# @package _global_\nhydra: {sweeper: {params: {lora: [r4]}}}\nmax_steps: 8\nlora_target_modules: [q_proj]\n"
    )
    assert body(tmp_path, text) == ["++axolotl.max_steps=8", "++axolotl.lora_target_modules=[q_proj]"]


def test_a_number_in_the_body_is_the_number_of_the_command_line(tmp_path: Path) -> None:
    """YAML 1.1 reads 2e-4 as text, and text has another run key."""
    text = (
        "# @package _global_\nlearning_rate: 2e-4\nchat_template_kwargs: {at: 1.5E3, day: 2026-11-03, text: '2e-4'}\n"
    )
    assert body(tmp_path, text) == [
        "++axolotl.learning_rate=0.0002",
        "++axolotl.chat_template_kwargs={at:1500.0,day:'2026-11-03',text:'2e-4'}",
    ]


def test_nodes_and_what_is_hydras_are_left_to_hydra(tmp_path: Path) -> None:
    assert body(tmp_path, "# @package _global_\ndefaults: []\naxolotl: {max_steps: 8}\ngpu: {count: 2}\n") == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("max_steps: 8\n", "does not begin with"),
        ("# @package _global_\nlearnin_rate: 3\n", "Did you mean learning_rate"),
        ("# @package _global_\nlora: r4\n", "override /lora: r4"),
        ("# @package _global_\ngpu: h100\n", "override /gpu: h100"),
        ("# @package _global_\nlora: {lora_r: 5}\n", "nothing reads keys below it"),
        ("# @package _global_\ndeepspeed: {zero_optimization: {stage: 2}}\n", "or below `axolotl:`"),
    ],
)
def test_what_would_be_dropped_in_silence_is_refused(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(SweepError, match=says):
        body(tmp_path, text)
