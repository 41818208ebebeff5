"""The Hydra application as a command: what it prints and what its exit code says."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from runner.errors import SweepError


def test_the_launch_sees_the_command_line_as_it_was_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from runner import application

    seen: list[list[str]] = []

    def launch(experiments: Any, request: Any) -> list[Any]:
        seen.append(sys.argv[1:])
        return []

    monkeypatch.setattr(sys, "argv", ["axosweep", "lora=r8", "max_steps=5"])
    assert application.run(["lora=r8", "max_steps=5"], launch) == 0
    assert seen == [["lora=r8", "max_steps=5"]]
    assert sys.argv == ["axosweep", "lora=r8", "max_steps=5"]


def test_nothing_is_warned_about(ask: Callable[..., Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ask("lora=r8")
        ask("-m", "lora=r8,r16")


def test_completion_can_be_asked_for_in_hydras_way(ask: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    ask("-sc", "install=bash")
    assert "complete -F _axosweep axosweep" in capsys.readouterr().out
    with pytest.raises(SweepError, match="axosweep completion bash"):
        ask("-sc", "bash")


def test_the_version_is_axosweeps_own_and_names_its_axolotl(
    ask: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask("--version").batches == 0
    assert re.fullmatch(r"axosweep \d\S+ \(Axolotl 0\.\S+, Hydra 1\.\S+\)\n", capsys.readouterr().out)


def test_a_list_value_is_no_sweep(ask: Callable[..., Any]) -> None:
    (experiment,) = ask("lora_target_modules=[q_proj,v_proj]", "lora_target_linear=false").experiments
    assert experiment.axolotl["lora_target_modules"] == ["q_proj", "v_proj"]


def test_an_error_inside_the_launch_is_not_taken_for_hydras(ask: Callable[..., Any]) -> None:
    from runner import application

    def launch(experiments: Any, request: Any) -> list[Any]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        application.run(["lora=r8"], launch)
