"""A complete launch up to its first step: what Axolotl checks, and what is printed before anything starts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modal_app.store.layout import Store
from modal_app.store.manifest import listed_files
from modal_app.store.step import StepKind
from runner import cli
from tests.printed_json import read_printed
from tests.runner.fake_trainer import LAST_WORDS, asked, make_trainer

CONFLICT = {"keys": ["eval_steps", "evals_per_epoch"], "message": "eval_steps and evals_per_epoch are exclusive."}

Main = Callable[..., int]


@pytest.fixture
def trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = make_trainer(tmp_path / "trainer", refused=[CONFLICT], warned=["`learning_rate` is odd"])
    monkeypatch.setenv("AXOSWEEP_TRAINER", str(folder))
    return folder


@pytest.fixture
def main(tmp_path: Path) -> Main:
    return lambda *words: cli.main([*words, f"store={tmp_path / 'store'}"])


@pytest.mark.usefixtures("trainer")
def test_a_launch_in_json_prints_nothing_else_on_standard_output(
    main: Main, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main("json=true") == 1
    output = capsys.readouterr()
    (run,) = json.loads(output.out)["runs"]
    assert "1 run, 1 dataset (1 to tokenize)" in output.err
    assert run["status"] == "blocked"
    assert "ended before the step started" in run["message"]
    assert LAST_WORDS in Path(run["log"]).read_text()


@pytest.mark.usefixtures("trainer")
def test_a_launch_that_only_prepares_datasets_prints_json_too(main: Main, capsys: pytest.CaptureFixture[str]) -> None:
    assert main("stages=[preprocess]", "--json") == 1
    printed = read_printed("launch", capsys.readouterr().out)
    assert printed["sweep"].startswith("stages-")
    assert printed["runs"] == []


@pytest.mark.usefixtures("trainer")
def test_a_removed_run_that_is_requested_again_no_longer_counts_as_removed(
    main: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = []
    for _ in range(2):
        assert main("json=true") == 1
        (run,) = json.loads(capsys.readouterr().out)["runs"]
        words.append(run["status"])
        Store(tmp_path / "store").folder(StepKind.TRAIN, run["key"]).removed.write_text("{}")
    assert words == ["blocked", "blocked"]


def test_a_trainer_that_cannot_even_start_is_reported_with_its_last_output(
    main: Main, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    python = tmp_path / "trainer" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/sh\necho '{LAST_WORDS}' >&2\nexit 7\n")
    python.chmod(0o755)
    monkeypatch.setenv("AXOSWEEP_TRAINER", str(tmp_path / "trainer"))
    assert main() == 2
    assert LAST_WORDS in capsys.readouterr().err
    assert not (tmp_path / "store" / "runs").exists()


def test_what_axolotl_refuses_is_not_launched_and_leaves_nothing(
    main: Main, trainer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main("eval_steps=5", "evals_per_epoch=4", "--force") == 2
    output = capsys.readouterr().err
    assert "eval_steps=5, evals_per_epoch=4: eval_steps and evals_per_epoch are exclusive." in output
    assert len(asked(trainer)) == 1
    assert not (tmp_path / "store" / "runs").exists()
    assert not list((tmp_path / "store").glob("sweeps/*"))


def test_what_is_known_at_once_and_what_axolotl_adds_are_both_printed(
    main: Main, trainer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main("-m", "eval_steps=5", "evals_per_epoch=4", "lora_dropout=2,3", "learning_rate=1e-3") == 2
    output = capsys.readouterr().err
    assert "2 of 2 runs cannot start" in output
    assert (
        "- lora_dropout=2: expected at least 0 and below 1.\n  (eval_steps=5 evals_per_epoch=4 lora_dropout=2 "
        in output
    )
    assert "- eval_steps=5, evals_per_epoch=4: eval_steps and evals_per_epoch are exclusive.\n  (all of them)" in output
    assert (
        output.index("lora_dropout=2:")
        < output.index("Checking the runs against Axolotl")
        < output.index("are exclusive")
    )


def test_a_mistake_is_reported_without_a_trainer(
    main: Main, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AXOSWEEP_TRAINER", str(tmp_path / "nowhere"))
    assert main("lora_dropout=2") == 2
    assert "lora_dropout=2: expected" in capsys.readouterr().err


def test_nothing_is_sent_to_modal_before_axolotls_check(
    main: Main, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AXOSWEEP_TRAINER", str(tmp_path / "nowhere"))
    monkeypatch.setenv("MODAL_SERVER_URL", "http://127.0.0.1:9")  # no server there: a request would take a minute
    assert main("executor=modal") == 2
    assert "axosweep setup builds it" in (output := capsys.readouterr().err)
    assert "--force launches the sweep without this check" in output
    assert not list((tmp_path / "store").glob("**/sweeps/*"))


@pytest.mark.usefixtures("trainer")
def test_an_empty_value_is_reported_with_its_key(main: Main, capsys: pytest.CaptureFixture[str]) -> None:
    assert main("lora_r=") == 2
    assert "- lora_r='': expected int. Write lora_r=null" in capsys.readouterr().err


@pytest.mark.usefixtures("trainer")
def test_a_plan_tells_what_axolotl_remarks_and_refuses_what_it_refuses(
    main: Main, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main("plan") == 0
    assert "note: learning_rate (Axolotl says): `learning_rate` is odd." in capsys.readouterr().out
    assert main("plan", "eval_steps=5") == 2


@pytest.mark.usefixtures("trainer")
def test_a_plan_in_json_holds_the_findings(main: Main, capsys: pytest.CaptureFixture[str]) -> None:
    assert main("plan", "--json", "logging_steps=1000") == 0
    preflight = read_printed("plan", capsys.readouterr().out)["preflight"]
    assert preflight["schema_asked"] is True
    found = {one["key"]: one for one in preflight["findings"]}
    assert found["logging_steps"]["severity"] == "warning"
    assert found["logging_steps"]["runs"] == [0]


@pytest.mark.usefixtures("trainer")
def test_a_refused_plan_in_json_holds_what_refused_it(main: Main, capsys: pytest.CaptureFixture[str]) -> None:
    """With wrong values, which have no key; with what Axolotl refuses; and with what cannot be composed."""

    def refused(*words: str) -> dict[str, Any]:
        assert main("plan", "--json", *words) == 2
        output = capsys.readouterr()
        printed: dict[str, Any] = read_printed("plan", output.out)
        assert f"axosweep: {printed['refused']}\n" in output.err
        return printed

    early = refused("-m", "lora_dropout=2", "eval_steps=5", "evals_per_epoch=4", "learning_rate=1e-3,1e-4")
    assert [run["key"] for run in early["runs"]] == [None, None]
    assert [one["key"] for one in early["preflight"]["findings"][:2]] == ["lora_dropout", "eval_steps"]
    assert early["preflight"]["findings"][0]["runs"] == [0, 1]
    late = refused("eval_steps=5", "evals_per_epoch=4")
    assert late["runs"][0]["key"]
    assert "eval_steps and evals_per_epoch are exclusive" in late["refused"]
    assert refused("model=nonsense")["runs"] == []


@pytest.mark.usefixtures("trainer")
def test_an_error_to_which_axolotl_adds_nothing_is_printed_once_without_a_remark(
    main: Main, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main("lora_dropout=2") == 2
    output = capsys.readouterr().err.splitlines()
    assert output[-2] == "Checking the runs against Axolotl's own schema; its imports take a few seconds."
    assert output[-1].startswith("note: learning_rate (Axolotl says)")
    assert sum("lora_dropout=2" in line for line in output) == 1


def test_a_plan_without_a_trainer_says_that_axolotl_did_not_check_it(
    main: Main, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AXOSWEEP_TRAINER", str(tmp_path / "nowhere"))
    assert main("plan", "--json") == 0
    output = capsys.readouterr()
    assert read_printed("plan", output.out)["preflight"]["schema_asked"] is False
    assert "Not checked with Axolotl's own schema" in output.err


@pytest.mark.usefixtures("trainer")
def test_force_launches_what_would_only_be_a_waste(main: Main, capsys: pytest.CaptureFixture[str]) -> None:
    wasteful = ("gpu=a100_80gb", "executor=modal", "attn_implementation=flash_attention_3")
    assert main("plan", *wasteful) == 2
    assert "--force" in capsys.readouterr().err
    assert main("plan", *wasteful, "--force") == 0
    assert "flash_attention_3" in capsys.readouterr().out


LARGE = ("model=llama3_70b", "lora=r16", "micro_batch_size=1", "executor=modal")


@pytest.mark.usefixtures("trainer")
def test_what_will_not_fit_its_gpus_is_refused_with_the_way_out(main: Main, capsys: pytest.CaptureFixture[str]) -> None:
    assert main("plan", *LARGE, "gpu=a100_80gb") == 2
    output = capsys.readouterr()
    assert "On 1 x a100_80gb WON'T FIT: " in output.err
    assert "It would fit with `adapter=qlora load_in_4bit=true` or `gpu.count=4 deepspeed=zero3`." in output.err
    assert main("plan", *LARGE, "gpu=a100_80gb", "--force") == 0
    assert "WON'T FIT" in capsys.readouterr().out


@pytest.mark.usefixtures("trainer")
def test_plan_says_whether_each_run_fits_and_why_its_gpus_were_taken(
    main: Main, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main("plan", "-m", *LARGE, "lora=qlora", "gpu=h100,auto") == 0
    output = capsys.readouterr().out
    assert "gpu=auto: 1 x h100 FITS; compared by a rough price for " in output
    assert output.count("memory  1 x h100: FITS: ") == 1


@pytest.mark.usefixtures("trainer")
def test_a_plan_in_json_has_the_bytes(main: Main, capsys: pytest.CaptureFixture[str]) -> None:
    assert main("plan", *LARGE, "lora=qlora", "gpu=auto", "--json") == 0
    preflight = read_printed("plan", capsys.readouterr().out)["preflight"]
    ((memory,),) = preflight["memory"]
    assert memory["verdict"] == "FITS"
    assert memory["bytes"] == sum(memory["parts"].values())
    assert preflight["chosen"][0].startswith("gpu=auto: ")


@pytest.mark.usefixtures("trainer")
def test_a_large_model_that_would_train_on_a_cpu_is_remarked(main: Main, capsys: pytest.CaptureFixture[str]) -> None:
    main("plan", "model=llama3_8b")
    assert "gpu=cpu, for 8.0 billion parameters" in capsys.readouterr().out
    main("plan")
    assert "billion" not in capsys.readouterr().out


@pytest.mark.usefixtures("trainer")
def test_an_adapter_to_start_with_is_copied_and_a_base_model_linked(
    main: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Runs do not train on files that the user edits while they wait, except for a model, which is too large to be
    copied."""
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    assert main("json=true", f"lora_model_dir={adapter}", "--force") == 1, capsys.readouterr().err
    folders = [path for path in (tmp_path / "store" / "inputs").iterdir() if path.is_dir()]
    links = {path.resolve().name: path.is_symlink() for path in folders}
    assert sorted(links.values()) == [False, True]
    (copied,) = (path for path in folders if not path.is_symlink())
    assert [path.name for path in copied.iterdir()] == ["adapter_config.json"]


@pytest.mark.usefixtures("trainer")
def test_a_damaged_dataset_is_prepared_again_and_the_launch_says_so(
    main: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main("plan", "json=true") == 0
    (key,) = [one["key"] for one in json.loads(capsys.readouterr().out)["datasets"]]
    store = Store(tmp_path / "store")
    rows = store.prepared_dataset(key) / "hash" / "data.arrow"
    rows.parent.mkdir(parents=True)
    rows.write_bytes(b"rows")
    done = {"attempt": 1, "started_at": 1.0, "finished_at": 2.0, "files": listed_files(store.prepared_dataset(key))}
    store.manifest(key).write_text(json.dumps(done))
    assert main("plan") == 0
    assert "nothing to tokenize" in capsys.readouterr().out
    rows.write_bytes(b"swor")
    says = f"The prepared dataset {key} is damaged, so it is prepared again: the content of hash/data.arrow is not"
    assert main("plan") == 0
    assert says in capsys.readouterr().out
    assert store.manifest(key).exists(), "a plan changes nothing"
    assert main() == 1
    output = capsys.readouterr()
    assert says in output.out
    assert "1 dataset (1 to tokenize)" in output.out
    assert "blocked" in output.out
    assert not store.manifest(key).exists()
