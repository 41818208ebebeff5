"""Flags and overrides are distinguished as by Hydra's own parser."""

from __future__ import annotations

import pytest
from hydra._internal.utils import get_args_parser

from runner.api.arguments import SWITCHES, VALUED, Arguments, take_apart
from runner.errors import SweepError


@pytest.mark.parametrize(
    "line",
    [
        "-m lora=r8,r16",
        "lora=r8 -m gpu.count=2",
        "--cfg job lora=r8 --resolve -p axolotl",
        "-c hydra",
        "--info defaults lora=r8",
        "--info=all lora=r8",
        "-cd conf -cn config ~learning_rate",
        "--config-dir=conf x=1",
    ],
)
def test_a_line_is_taken_apart_as_hydra_takes_it(line: str) -> None:
    ours = take_apart(line.split())
    hydra = get_args_parser().parse_args([*ours.flags, *ours.overrides])
    assert vars(hydra) == vars(get_args_parser().parse_intermixed_args(line.split()))
    assert list(ours.overrides) == hydra.overrides
    assert ours.multirun == hydra.multirun


def test_info_does_not_swallow_an_override() -> None:
    """argparse alone would take `lora=r8` as the value of the flag."""
    assert take_apart(["--info", "lora=r8"]).overrides == ("lora=r8",)


def test_every_flag_is_hydras() -> None:
    known = {name for action in get_args_parser()._actions for name in action.option_strings}
    assert {*SWITCHES, *VALUED} <= known


@pytest.mark.parametrize(
    ("line", "way_out"),
    [
        ("--multirn", "--multirun"),
        ("--store x", "store=DIR"),
        ("--cfg jobb", "job, hydra"),
        ("-p", "value"),
        ("--yes=true", "--yes takes no value. Write --yes"),
        ("-m=1 lora=r8", "-m takes no value"),
        ("--cfg job --info", "Choose one of the two"),
        ("-m --run lora=r8", "Choose one of the two"),
        ("-p axolotl lora=r8", "Add --cfg job"),
        ("--resolve lora=r8", "--resolve says how --cfg prints the config. Add --cfg job"),
    ],
)
def test_a_wrong_flag_is_refused_with_the_way_out(line: str, way_out: str) -> None:
    with pytest.raises(SweepError, match=way_out):
        take_apart(line.split())


@pytest.mark.parametrize("words", [["-cd", "mine"], ["--config-dir=mine"], ["-cd", "other", "--config-dir", "mine"]])
def test_a_flag_with_a_value_is_split_off(words: list[str]) -> None:
    rest, value = take_apart(["-m", *words, "--cfg", "job", "lora=r8"]).split_off("-cd", "--config-dir")
    assert (rest.flags, rest.overrides, value) == (("-m", "--cfg", "job"), ("lora=r8",), "mine")
    assert rest.split_off("-cd") == (rest, None)


def test_a_note_is_any_text_and_no_override() -> None:
    text = "why: is {r} 8, or ${HOME} = 'less'?"
    for words in (["--note", text], [f"--note={text}"]):
        assert take_apart(["-m", "lora=r8", *words]) == Arguments(("-m",), ("lora=r8",), {"note": text})
    for empty in (["--note"], ["--note", " "]):
        with pytest.raises(SweepError, match="--note takes a text"):
            take_apart(empty)


def test_a_launch_takes_json_as_a_flag_as_the_verbs_do() -> None:
    assert take_apart(["-m", "lora=r8,r16", "--json"]) == take_apart(["-m", "lora=r8,r16", "json=true"])
