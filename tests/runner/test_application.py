"""The Hydra application as a command: what it prints and what its exit code says."""

from __future__ import annotations

import logging
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from runner.errors import SweepError
from runner.keys.hub_commits import Repository, resolve
from runner.types import RunResult


def test_the_launch_sees_the_command_line_as_it_was_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from runner.api import application

    seen: list[list[str]] = []

    def launch(experiments: Any, request: Any) -> list[Any]:
        seen.append(sys.argv[1:])
        return []

    monkeypatch.setattr(sys, "argv", ["axosweep", "lora=r8", "max_steps=5"])
    assert application.run(["lora=r8", "max_steps=5"], launch) == 0
    assert seen == [["lora=r8", "max_steps=5"]]
    assert sys.argv == ["axosweep", "lora=r8", "max_steps=5"]


def test_a_name_on_the_hub_is_looked_up_again_by_the_next_command_line_of_a_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from runner.api import application

    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    ref, name = tmp_path / "models--owner--model" / "refs" / "main", Repository("model", "owner/model")
    ref.parent.mkdir(parents=True)
    commits: list[str | None] = []

    def launch(experiments: Any, request: Any) -> list[Any]:
        commits.append(resolve(name, None).commit)
        return []

    for commit in ("a" * 40, "b" * 40):
        ref.write_text(commit)
        application.run(["lora=r8"], launch)
    assert commits == ["a" * 40, "b" * 40]


def test_nothing_is_warned_about(ask: Callable[..., Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ask("lora=r8")
        ask("-m", "lora=r8,r16")


def test_completion_can_be_requested_in_hydras_way(ask: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    ask("-sc", "install=bash")
    assert "complete -F _axosweep axosweep" in capsys.readouterr().out
    with pytest.raises(SweepError, match="axosweep completion bash"):
        ask("-sc", "bash")


def test_the_version_is_axosweeps_own_and_names_its_axolotl(
    ask: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask("--version").batches == 0
    assert re.fullmatch(r"axosweep \d\S+ \(Axolotl 0\.\S+, Hydra 1\.\S+\)\n", capsys.readouterr().out)


def test_a_list_value_is_not_a_sweep(ask: Callable[..., Any]) -> None:
    (experiment,) = ask("lora_target_modules=[q_proj,v_proj]", "lora_target_linear=false").experiments
    assert experiment.axolotl["lora_target_modules"] == ["q_proj", "v_proj"]


def test_an_error_inside_the_launch_is_not_taken_for_hydras(ask: Callable[..., Any]) -> None:
    from runner.api import application

    def launch(experiments: Any, request: Any) -> list[Any]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        application.run(["lora=r8"], launch)


CALLED: list[tuple[str, str]] = []


class Called(Callback):
    """A user's own callback, by Hydra's name for it."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        CALLED.append(("start", str(config.hydra.mode)))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        CALLED.append(("end", str(config.hydra.mode)))


BY_MAIN = ("-cn", "config")
"""A flag: then hydra.main starts, and it takes the config's own name."""
STARTS = {
    "a sweep": ("-m", "lora=r8,r16"),
    "one run": ("lora=r8",),
    "its mode said": ("-m", "lora=r8,r16", "hydra.mode=MULTIRUN"),
    "another mode said": ("-m", "lora=r8,r16", "hydra.mode=RUN"),
    "a callback": ("-m", "lora=r8,r16", "+hydra.callbacks.mine._target_=tests.runner.test_application.Called"),
    "much said": ("-m", "lora=r8,r16", "hydra.verbose=true"),
    "another place": ("-m", "lora=far,r8", "hydra.searchpath=[{folder}]"),
    "a sweeper of others": ("-m", "lora=r8,r16", "hydra/sweeper=basic"),
    "a launcher of others": ("-m", "lora=r8,r16", "hydra/launcher=basic"),
}


@pytest.mark.medium
@pytest.mark.filterwarnings("ignore:.*Running Hydra app with --multirun")
@pytest.mark.parametrize("words", STARTS.values(), ids=list(STARTS))
def test_a_command_with_a_flag_starts_as_one_without(
    words: Sequence[str], tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without one, Hydra's multirun is called; with one, hydra.main."""
    monkeypatch.setenv("AXOSWEEP_STORE", str(tmp_path / "store"))
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "far.yaml").write_text("# @package axolotl\nseed: 77\n")
    said = [word.format(folder=tmp_path) for word in words]
    straight, by_main = _started(said), _started([*BY_MAIN, *said])
    shown = capfd.readouterr()
    assert straight == by_main
    assert straight["batches"], shown.err
    if "+hydra.callbacks" in str(said):
        assert straight["called"] == [("start", "RunMode.MULTIRUN"), ("end", "RunMode.MULTIRUN")]
    if "searchpath" in str(said):
        assert straight["batches"][0][1][0]["seed"] == 77


def _started(words: Sequence[str]) -> dict[str, Any]:
    """What a launch gets, and what Hydra's settings are."""
    from runner.api import application

    batches: list[Any] = []
    root, before = logging.getLogger(), logging.getLogger().level
    CALLED.clear()

    def launch(experiments: Any, request: Any) -> list[RunResult]:
        hydra: Any = OmegaConf.to_container(HydraConfig.get())
        hydra["overrides"]["hydra"] = list(dict.fromkeys(hydra["overrides"]["hydra"]))  # a mode that is given twice
        hydra["runtime"].pop("output_dir", None)  # holds the second
        batches.append((hydra, [one.axolotl for one in experiments], request, root.level))
        return [RunResult(str(number), True, 1.0, "") for number, _ in enumerate(experiments)]

    try:
        code = application.run(list(words), launch)
    finally:
        root.setLevel(before)
    return {"code": code, "batches": batches, "called": list(CALLED)}
