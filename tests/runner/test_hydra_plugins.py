"""The sweeper and launcher, through real Hydra: each job composed once, equal to Hydra's own; others' plugins work."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from runner.composing.resolvers import register_resolvers
from runner.config.shipped import shipped_root
from runner.errors import SweepError


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory outside the repository: nothing may depend on it, and nothing may be left in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AXOSWEEP_STORE", str(tmp_path / "store"))
    return tmp_path


def _axes(requested: Any, *keys: str) -> list[tuple[Any, ...]]:
    return [tuple(experiment.axolotl[key] for key in keys) for experiment in requested.experiments]


def test_a_sweep_is_the_product_of_its_axes_in_one_launch(ask: Callable[..., Any], elsewhere: Path) -> None:
    requested = ask("-m", "lora=r8,r16", "learning_rate=1e-3,3e-3")
    assert _axes(requested, "lora_r", "learning_rate") == [(8, 1e-3), (8, 3e-3), (16, 1e-3), (16, 3e-3)]
    assert (requested.batches, requested.exit_code) == (1, 0)
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize(
    ("axis", "values"),
    [
        ("lora_r=range(4,7)", [4, 5, 6]),
        ("lora_r=choice(4,8)", [4, 8]),
        ("lora_r=4,4", [4, 4]),
        ("lora=glob(r*,exclude=[r*4,r*8,r2*,rslora])", [16, 32]),
    ],
)
def test_an_axis_may_use_hydras_grammar(ask: Callable[..., Any], axis: str, values: list[int]) -> None:
    assert [row[0] for row in _axes(ask("-m", axis), "lora_r")] == values


def test_a_sweep_file_is_found_from_any_folder(ask: Callable[..., Any]) -> None:
    requested = ask("-m", "+sweeps=tiny_grid")
    assert len(requested.experiments) == 6
    assert not any("sweeps" in override for one in requested.experiments for override in one.overrides)


def test_the_command_line_wins_over_a_sweep_file(ask: Callable[..., Any]) -> None:
    one_rank = ask("-m", "+sweeps=tiny_grid", "lora=r64")
    assert {experiment.axolotl["lora_r"] for experiment in one_rank.experiments} == {64}
    one_rate = ask("-m", "+sweeps=tiny_grid", "axolotl.learning_rate=0.5")
    assert {experiment.axolotl["learning_rate"] for experiment in one_rate.experiments} == {0.5}
    dropped = ask("-m", "+sweeps=tiny_grid", "~hydra.sweeper.params.learning_rate")
    assert len(dropped.experiments) == 2
    unset = ask("-m", "+sweeps=tiny_grid", "~learning_rate")
    assert ["learning_rate" in experiment.axolotl for experiment in unset.experiments] == [False, False]


def test_a_sweep_file_and_the_command_line_mean_the_same_run(ask: Callable[..., Any], elsewhere: Path) -> None:
    (elsewhere / "sweeps").mkdir()
    (elsewhere / "sweeps" / "mine.yaml").write_text("# @package _global_\nlearning_rate: 2e-4\nweight_decay: 1e-2\n")
    (of_file,) = ask("-m", "+sweeps=mine").experiments
    (of_line,) = ask("learning_rate=2e-4", "weight_decay=1e-2").experiments
    assert of_file.axolotl == of_line.axolotl


def test_two_sweep_files_are_not_one_sweep(ask: Callable[..., Any], elsewhere: Path) -> None:
    """Their bodies would not count."""
    (elsewhere / "sweeps").mkdir()
    for name in ("a", "b"):
        (elsewhere / "sweeps" / f"{name}.yaml").write_text("# @package _global_\nmax_steps: 5\n")
    with pytest.raises(SweepError, match="sweeps=a,b: a command launches one sweep file"):
        ask("-m", "+sweeps=a,b")
    assert ask("-m", "+sweeps=a").experiments[0].axolotl["max_steps"] == 5


def test_a_key_that_lies_in_another_one_counts_in_the_order_of_the_overrides(
    ask: Callable[..., Any], elsewhere: Path
) -> None:
    (elsewhere / "sweeps").mkdir()
    (elsewhere / "sweeps" / "mine.yaml").write_text(
        "# @package _global_\nhydra: {sweeper: {params: {datasets.0.path: [a.jsonl, b.jsonl], seed: [1]}}}\n"
        "datasets: [{path: c.jsonl, type: alpaca}]\n"
    )
    paths = [one.axolotl["datasets"][0]["path"] for one in ask("-m", "+sweeps=mine").experiments]
    assert paths == ["a.jsonl", "b.jsonl"]
    for one in ask("-m", "+sweeps=mine", "datasets=[{path: d.jsonl, type: chat_template}]").experiments:
        assert one.axolotl["datasets"] == [{"path": "d.jsonl", "type": "chat_template"}]


def test_each_job_is_what_hydra_itself_composes(ask: Callable[..., Any]) -> None:
    requested = ask("-m", "lora=r8,none", "learning_rate=1e-3,5", "gpu=h100", "~weight_decay", "seed=7")
    register_resolvers()
    with initialize_config_dir(str(shipped_root() / "conf"), version_base="1.3"):
        for experiment in requested.experiments:
            lora, rate, gpu, *_ = experiment.overrides
            alone = compose("config", [lora, f"++axolotl.{rate}", gpu, "~axolotl.weight_decay", "++axolotl.seed=7"])
            assert OmegaConf.to_container(alone.axolotl, resolve=True) == experiment.axolotl
    assert len(requested.experiments) == 4


@pytest.mark.parametrize(
    ("line", "way_out"),
    [
        ("-m action=plan,launch", "cannot be swept"),
        ("-m json=true,false", "cannot be swept"),
        ("-m store=a,b", "cannot be swept"),
        ("-m hydra.job.name=a,b", "hydra.job.name"),
        ("lora=1e3", "lora=1e3: there is no such lora"),
        ("-m lora=r8,.5", "lora=.5: there is no such lora"),
        ("model=nan", "model=nan: there is no such model"),
        ("-m learning_rate=interval(0,1)", "range"),
        ("-m lora=glob(x*)", "matches nothing"),
        ("-m +sweeps=no_such", "tiny_grid"),
        ("lora=r8,r16", "axosweep -m lora=r8,r16"),
        ("lora_r=choice(8,16) --exclude lora_r=8", "axosweep -m 'lora_r=choice\\(8,16\\)' --exclude 'lora_r=8'"),
        ("+sweeps=tiny_grid lora=r8", "axosweep -m \\+sweeps=tiny_grid lora=r8"),
        ("lora=r999", "There are: dora"),
        ("deepspeed=/mine/zero.json", "^deepspeed=/mine/zero.json: .* axolotl.deepspeed=/mine/zero.json"),
        ("experiment=llama3_8b_alpca", "Did you mean llama3_8b_alpaca"),
        ("special_tokens.pad_token=<|end_of_text|>", "'special_tokens.pad_token=\"<|end_of_text|>\"'"),
    ],
)
def test_a_sweep_that_means_nothing_is_refused_with_the_way_out(
    ask: Callable[..., Any], line: str, way_out: str
) -> None:
    with pytest.raises(SweepError, match=way_out.replace("|", "\\|")):
        ask(*line.split())


def test_what_is_wrong_with_any_job_is_said_together(ask: Callable[..., Any]) -> None:
    with pytest.raises(SweepError) as refused:
        ask("-m", "lora=r8,r999", "gpu.count=1,0")
    said = str(refused.value)
    assert "3 of 4 runs cannot start" in said
    assert "lora=r999" in said
    assert "gpu.count=0" in said


def _own_conf(folder: Path, **files: str) -> list[str]:
    for name, text in files.items():
        path = folder / "own" / f"{name.replace('__', '/')}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return ["--config-dir", str(folder / "own")]


SWEEPING = "# @package _global_\nhydra:\n  sweeper:\n    params:\n      lora: [r8, r16]\n"


def test_a_swept_choice_cannot_bring_axes_of_its_own(ask: Callable[..., Any], elsewhere: Path) -> None:
    own = _own_conf(elsewhere, experiment__sweeping=SWEEPING)
    with pytest.raises(SweepError, match=r"hydra\.sweeper"):
        ask("-m", *own, "experiment=sweeping,llama3_8b_alpaca")


def test_axes_that_come_with_an_experiment_still_take_m(ask: Callable[..., Any], elsewhere: Path) -> None:
    own = _own_conf(elsewhere, experiment__sweeping=SWEEPING)
    assert len(ask("-m", *own, "experiment=sweeping").experiments) == 2
    with pytest.raises(SweepError, match="A sweep needs -m"):
        ask(*own, "experiment=sweeping")


def test_a_failed_run_makes_the_exit_code_1(ask: Callable[..., Any]) -> None:
    assert ask("-m", "lora=r8,r16", succeed=False).exit_code == 1


def test_the_overrides_of_each_job_are_printed_in_the_form_any_sweeper_takes(
    ask: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    requested = ask("-m", "+sweeps=tiny_grid", "learning_rate=1e-3", "action=overrides")
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith("lora=r") and "++axolotl.learning_rate=0.001" in line for line in lines)
    assert requested.batches == 0


def test_a_sweeper_of_others_gets_each_runs_eval_loss_from_our_launcher(
    ask: Callable[..., Any], elsewhere: Path
) -> None:
    requested = ask("-m", "hydra/sweeper=basic", "lora=r8,r16", "learning_rate=1e-3,3e-3")
    assert _axes(requested, "lora_r", "learning_rate") == [(8, 1e-3), (8, 3e-3), (16, 1e-3), (16, 3e-3)]
    assert requested.batches == 1
    assert [path.name for path in elsewhere.iterdir()] == ["store"]


def test_a_failed_run_stops_a_sweeper_of_others_with_exit_code_1(ask: Callable[..., Any]) -> None:
    assert ask("-m", "hydra/sweeper=basic", "lora=r8,r16", succeed=False).exit_code == 1


def test_a_launcher_of_others_runs_our_jobs_one_by_one(
    ask: Callable[..., Any], elsewhere: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    requested = ask("-m", "hydra/launcher=basic", "lora=r8,r16", "max_steps=5")
    assert _axes(requested, "lora_r", "max_steps") == [(8, 5), (16, 5)]
    assert requested.batches == 2
    assert capfd.readouterr().out == ""
    assert [path.name for path in elsewhere.iterdir()] == ["store"]


@pytest.mark.parametrize("flags", [["--cfg", "job"], ["--cfg", "hydra"], ["--info"], ["--info", "searchpath"]])
def test_what_hydra_only_shows_launches_nothing(
    ask: Callable[..., Any], capfd: pytest.CaptureFixture[str], elsewhere: Path, flags: list[str]
) -> None:
    requested = ask(*flags, "learning_rate=0.125")
    assert requested.batches == 0
    assert list(elsewhere.iterdir()) == []


def test_the_shown_config_holds_bare_keys(ask: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    ask("--cfg", "job", "-p", "axolotl", "learning_rate=0.125")
    assert "learning_rate: 0.125" in capsys.readouterr().out


def test_no_mistake_shows_a_traceback(elsewhere: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "runner", "-m", "lora=r8,r999"],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(shipped_root()), "PATH": ""},
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "lora=r999" in done.stderr


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("hydra=5", "Hydra cannot use hydra=5: Config group override must be a string"),
        ("hydra/sweeper=null", "Hydra cannot use hydra/sweeper=null: Config group override must be a string"),
        ("hydra.searchpath=[nosuch://x]", "Hydra cannot use hydra.searchpath: No config source registered for schema"),
        ("hydra.sweeper=3", "hydra.sweeper is a mapping of settings. To choose one: hydra/sweeper=NAME"),
        ("hydra.launcher=basic", "hydra.launcher is a mapping of settings. To choose one: hydra/launcher=NAME"),
        ("hydra.launcher=null", "hydra.launcher is a mapping of settings"),
        ("hydra.verbose=1", "hydra.verbose is true, false, the name of a logger, or a list of names"),
        ("hydra.verbose=[1]", "hydra.verbose is true, false, the name of a logger, or a list of names"),
        ("hydra.verbose={a: 1}", "hydra.verbose is true, false, the name of a logger, or a list of names"),
    ],
)
def test_what_hydra_refuses_without_naming_it_is_named(ask: Callable[..., Any], override: str, says: str) -> None:
    for words in ([], ["-m", "lora=r8,r16"], ["--cfg", "job"]):
        with pytest.raises(SweepError, match=says):
            ask(*words, override)
