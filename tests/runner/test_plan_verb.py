"""`axosweep plan` as a command: what it prints, in words and as JSON, and what it writes."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import yaml

import axosweep
from runner import cli
from runner.errors import SweepError
from tests.printed_json import read_printed
from tests.runner.fake_trainer import make_trainer

GRID = ("-m", "lora=r4,r8", "learning_rate=1e-3,2e-3")

Main = Callable[..., int]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AXOSWEEP_TRAINER", str(make_trainer(tmp_path / "trainer")))
    monkeypatch.setenv("AXOSWEEP_STORE", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_plan_ends_in_the_command_that_runs_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", *GRID, "name=a b"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("Run it: axosweep ")
    assert shlex.split(last)[3:] == [*GRID, "name=a b"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("gpu=t4", "model=llama3_1_8b", f"revision_of_model={'a' * 40}"), "WON'T FIT"),
        (("gpu=h100", "budget=0.0001"), "budget=0.0001: preparing"),
        (("gpu=h100", "budget=0.05"), "budget=0.05: this may cost"),
    ],
)
def test_a_plan_that_is_refused_gives_no_command(
    words: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["plan", "executor=modal", *words]) == 2
    printed = capsys.readouterr()
    assert says in printed.err
    assert "unresolved" not in printed.out
    assert "total   " in printed.out
    assert "Run it" not in printed.out


def test_a_plan_says_which_containers_are_reused(capsys: pytest.CaptureFixture[str]) -> None:
    capped = ("plan", *GRID, "gpu=a100_80gb", "gpu.count=1,2", "executor=modal", "executor.max_gpus=7")
    assert cli.main([*capped]) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("reuse   ")]
    assert said == [
        "reuse   4 runs on A100-80GB:1 in 3 containers, each of which takes about 1 or 2 in turn",
        "reuse   4 runs on A100-80GB:2 in 2 containers, each of which takes about 2 in turn",
    ]
    assert cli.main([*capped, "executor.modal.reuse=false"]) == 0
    assert capsys.readouterr().out.count("at a time, each in a container of its own (executor.modal.reuse=false)") == 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("executor=modal", "executor.modal.reuse="), "executor.modal.reuse='': true or false."),
        (("executor.modal.reuse=false",), "executor.modal.reuse exists only with executor=modal."),
    ],
)
def test_a_refused_key_of_modal_is_named(words: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", *words]) == 2
    assert says in capsys.readouterr().err


WHOLE_70B = ("gpu=h200", "gpu.count=8", "model=llama3_1_70b", "lora=none", "deepspeed=zero3", "executor=modal")


def test_a_plan_requests_the_disk_that_its_checkpoints_need(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["plan", *WHOLE_70B, "save_total_limit=1", "optimizer=adamw_torch_fused"])
    (said,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("disk    ")]
    # 70.6 billion weights of 2 bytes, and their fp32 copies with two states of 4 bytes: 14 bytes each.
    assert "about 2911 of 3072 GiB of each container, requested from Modal" in said
    assert said.endswith(": 3 checkpoints of 919.9 GiB, a model of 131.4 GiB, 20 GiB for temporary rows and caches")


def test_a_plan_for_more_disk_than_modal_has_is_refused_with_the_way_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", *WHOLE_70B]) == 2
    said = capsys.readouterr()
    assert "Modal gives a container at most 3072 GiB. Set save_total_limit=3." in said.err
    assert "total   $" in said.out, "like any other plan that is refused"
    assert cli.main(["plan", *WHOLE_70B, "save_only_model=true", "save_total_limit=3"]) == 0
    assert "GiB of its container's disk" not in capsys.readouterr().err


def test_a_plan_for_cards_that_are_not_here_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", "gpu=h100", "gpu.count=8"]) == 0
    printed = capsys.readouterr()
    assert "note: executor=local needs 8 NVIDIA GPU(s)" in printed.err
    assert printed.err.index("executor=modal") < printed.err.index("gpu=cpu")
    assert "Run it" not in printed.out


def test_a_plan_without_the_hub_says_that_a_launch_is_refused_and_how_to_pin_the_name(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    assert cli.main(["plan", "executor=modal", "gpu=h100", "model=llama3_2_1b"]) == 0
    printed = capsys.readouterr()
    assert "unresolved base_model=" in printed.out
    assert "or pin it: revision_of_model=<40-digit commit>" in printed.err


def test_a_plan_as_json_holds_all_that_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", *GRID, "--json"]) == 0
    planned = read_printed("plan", capsys.readouterr().out)
    assert planned["counts"] == {"new": 4, "finished": 0, "duplicates": 0}
    assert planned["models"] == []
    assert planned["command"] == shlex.join(["axosweep", *GRID])
    assert [one["done"] for one in planned["datasets"]] == [False]
    assert planned["diff"] is None
    assert planned["notes"] == []


def test_a_plan_as_json_has_the_notes_that_are_printed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = here / "rows.jsonl"
    words = ["-m", f"datasets=[{{path: {rows}, type: alpaca}}]", "val_set_size=0.1,0.2"]
    rows.write_text('{"instruction": "a", "output": "b"}\n' * 40)
    assert cli.main([*words, "name=before"]) == 1
    rows.write_text('{"instruction": "c", "output": "d"}\n' * 40)
    capsys.readouterr()
    assert cli.main(["plan", *words, "--json"]) == 0
    printed = capsys.readouterr()
    notes = read_printed("plan", printed.out)["notes"]
    assert len(notes) == 2
    assert notes[0].startswith("these runs have 2 sets of held-out rows")
    assert notes[1].endswith("This has changed since then: what datasets.0.path holds.")
    assert all(f"note: {note}" in " ".join(printed.err.split()) for note in notes)
    assert axosweep.plan(*words[1:]).notes == tuple(notes)


def test_a_plan_has_each_point_that_is_left_out_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    words = (*GRID, "seed=7", "--exclude", "lora=r8 learning_rate=2e-3")
    assert cli.main(["plan", *words]) == 0
    said = capsys.readouterr().out
    assert ": 3 runs" in said
    assert "  left out: lora=r8 learning_rate=0.002  (--exclude 'lora=r8 learning_rate=2e-3')" in said
    assert cli.main(["plan", "--json", *words]) == 0
    planned = read_printed("plan", capsys.readouterr().out)
    point = {
        "overrides": ["lora=r8", "learning_rate=0.002", "seed=7"],
        "why": "--exclude 'lora=r8 learning_rate=2e-3'",
    }
    assert planned["left_out"] == [point]
    assert shlex.split(planned["command"])[1:] == list(words)
    assert [list(one.overrides) for one in axosweep.plan(*words[1:]).left_out] == [point["overrides"]]
    assert cli.main(["plan", "--overrides", *words]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


@pytest.mark.parametrize(
    "flags", [("--json",), ("--write", "files"), ("--diff", "before"), ("--json", "--write=files")]
)
def test_overrides_are_printed_alone(flags: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", "--overrides", *flags, *GRID]) == 2
    printed = capsys.readouterr()
    assert "--overrides prints nothing else. Leave it out, or leave out --" in printed.err
    if "--json" in flags:
        assert "nothing else" in read_printed("plan", printed.out)["refused"]
    else:
        assert printed.out == ""


def test_points_that_differ_in_everything_are_shown_with_each_axis(capsys: pytest.CaptureFixture[str]) -> None:
    axes = ("learning_rate=tag(log,interval(1e-5,1e-3))", "lora=r8,r16,r32,r64", "lora_dropout=interval(0,0.1)")
    assert cli.main(["plan", "-m", *axes, "search=random", "search.runs=4"]) == 0
    shown = [line.split("to train")[1].split() for line in capsys.readouterr().out.splitlines() if "to train" in line]
    assert [[word.partition("=")[0] for word in words] for words in shown] == [
        ["learning_rate", "lora_r", "lora_dropout"]
    ] * 4


def test_a_plans_runs_are_written_as_configs(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", *GRID, "--write", "files", "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert planned["written"] == [str(here / "files" / f"{run['key']}.yml") for run in planned["runs"]]
    assert "--write" not in planned["command"]
    config = yaml.safe_load(Path(planned["written"][0]).read_text())
    assert (config["lora_r"], config["learning_rate"]) == (4, 1e-3)
    Path(planned["written"][0]).write_text("mine")
    assert cli.main(["plan", *GRID, "--write=files"]) == 2
    assert "exists with different content" in capsys.readouterr().err


def test_a_plan_is_shown_next_to_an_earlier_sweep(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*GRID, "name=before"]) == 1, "the trainer of this test trains nothing, but the sweep is on record"
    capsys.readouterr()
    assert cli.main(["plan", "-m", "lora=r4", "learning_rate=1e-3,3e-3", "--diff", "before"]) == 0
    said = capsys.readouterr().out
    assert "learning_rate: 0.001, 0.002 there, 0.001, 0.003 here" in said
    assert [line.split()[1:3] for line in said.splitlines() if " there " in line and "only" in line] == [
        ["only", "there"]
    ] * 3
    assert cli.main(["plan", *GRID, "--diff", "before", "--json"]) == 0
    diff = read_printed("plan", capsys.readouterr().out)["diff"]
    assert (len(diff["both"]), diff["only_there"], diff["only_here"], diff["changes"]) == (4, [], [], [])


def test_a_sweep_that_is_not_there_leaves_nothing_written(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", *GRID, "--diff", "nothing", "--write", "files"]) == 2
    assert "There is no sweep" in capsys.readouterr().err
    assert not (here / "files").exists()


def test_hydras_flags_reach_hydra(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "other" / "lora").mkdir(parents=True)
    own = "# @package axolotl\nadapter: lora\nlora_r: 3\nlora_alpha: 6\nlora_target_linear: true\n"
    (here / "other" / "lora" / "own.yaml").write_text(own)
    assert cli.main(["plan", "--config-dir", "other", "lora=own", "--write", "files", "--json"]) == 0
    (file,) = json.loads(capsys.readouterr().out)["written"]
    assert yaml.safe_load(Path(file).read_text())["lora_r"] == 3


@pytest.mark.parametrize("called", [axosweep.plan, axosweep.launch])
@pytest.mark.parametrize("sweeper", [(), ("hydra/sweeper=basic",)])
def test_a_launcher_that_makes_several_sweeps_is_refused_where_one_is_returned(
    called: Callable[..., object], sweeper: Sequence[str], here: Path
) -> None:
    with pytest.raises(SweepError, match=r"^hydra/launcher=basic launches each run as a sweep of its own"):
        called(*sweeper, "hydra/launcher=basic", "lora=r4,r8")
    assert not (here / "store" / "sweeps").exists(), "nothing was started"


def test_a_launcher_that_makes_several_sweeps_is_refused_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", *GRID, "hydra/launcher=basic", "--json"]) == 2
    assert "a sweep of its own" in read_printed("plan", capsys.readouterr().out)["refused"]


def test_a_sweeper_that_makes_several_sweeps_is_refused_where_one_is_returned() -> None:
    batches = ("hydra/sweeper=basic", "lora=r4,r8", "hydra.sweeper.max_batch_size=1")
    with pytest.raises(SweepError, match=r"^This sweeper makes several sweeps"):
        axosweep.plan(*batches)
    assert len(axosweep.plan(*batches[:2]).runs) == 2
