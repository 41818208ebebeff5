"""from=RUN starts from that run's config, GPUs and rows, unless something else says what to start from."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from modal_app.store.layout import Store
from modal_app.store.step import StepKind
from runner.errors import SweepError
from runner.keys.content import ContentHashes
from runner.types import DataChoice, Experiment, Gpu, Run
from tests.runner.builders import open_sweep, run
from tests.runner.checkpointed import source

ROWS = [{"path": "rows.jsonl", "type": "alpaca", "split": "train[:50]"}]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.chdir(tmp_path)
    return Store(tmp_path / "store")


@pytest.fixture
def asked(ask: Callable[..., Any], store: Store) -> Callable[..., Sequence[Experiment]]:
    return lambda *words: ask(*words, f"store={store.root}").experiments


def _recorded(store: Store, **given: Any) -> Run:
    axolotl = {"base_model": "a/b", "datasets": ROWS, "lora_r": 64, "learning_rate": 1e-5, "seed": 7}
    one = run(axolotl, **given)
    open_sweep(store, [one])
    return one


def test_a_run_that_continues_has_the_config_of_its_origin_and_the_changes_of_its_line(
    store: Store, asked: Callable[..., Sequence[Experiment]]
) -> None:
    origin = _recorded(store, gpu=Gpu("h100", 2), data=DataChoice(limit=50, seed=3))
    (one,) = asked(f"from={origin.key}@10", "learning_rate=1e-4", "gpu.count=4")
    assert one.axolotl == {**origin.experiment.axolotl, "learning_rate": 1e-4}
    assert (one.gpu.type, one.gpu.count) == ("h100", 4)
    assert (one.data.limit, one.data.seed) == (50, 3)
    assert one.from_text == f"{origin.key}@10"
    assert one.overrides == (f"from={origin.key}@10", "learning_rate=0.0001", "gpu.count=4")


@pytest.mark.parametrize("quoted", ["'{}'", '"{}"'])
def test_a_run_is_found_in_a_store_that_is_named_in_quotes(store: Store, ask: Callable[..., Any], quoted: str) -> None:
    origin = _recorded(store)
    (one,) = ask(f"from={origin.key}", f"store={quoted.format(store.root)}").experiments
    assert one.axolotl["lora_r"] == 64


def test_a_group_that_is_named_applies_over_it(store: Store, asked: Callable[..., Sequence[Experiment]]) -> None:
    origin = _recorded(store)
    (one,) = asked(f"from={origin.key}", "lora=r8", "data.limit=20")
    assert (one.axolotl["lora_r"], one.axolotl["learning_rate"]) == (8, 1e-5)
    assert one.axolotl["datasets"][0]["split"] == "train[:50]", "preflight refuses to cut it again"


def test_each_of_several_origins_gives_its_own_config(store: Store, asked: Callable[..., Sequence[Experiment]]) -> None:
    low, high = (source(store, 10, lora_r=rank) for rank in (8, 16))
    found = asked("-m", f"from={low.key}@10,{high.key}@10", "max_steps=20,30")
    assert [(one.axolotl["lora_r"], one.axolotl["max_steps"]) for one in found] == [
        (8, 20),
        (8, 30),
        (16, 20),
        (16, 30),
    ]


def _sweep_file(text: str) -> None:
    Path("sweeps").mkdir()
    Path("sweeps/mine.yaml").write_text(f"# @package _global_\n{text}\n")


def test_an_origin_on_the_command_line_replaces_those_of_a_sweep_file(
    store: Store, asked: Callable[..., Sequence[Experiment]], capsys: pytest.CaptureFixture[str]
) -> None:
    low, high, other = (source(store, 10, lora_r=rank) for rank in (8, 16, 32))
    _sweep_file(f"hydra: {{sweeper: {{params: {{from: ['{low.key}@10', '{high.key}@10'], seed: [1]}}}}}}")
    assert [one.axolotl["lora_r"] for one in asked("-m", "+sweeps=mine")] == [8, 16]
    capsys.readouterr()
    (one,) = asked("-m", "+sweeps=mine", f"from={other.key}@10")
    assert (one.axolotl["lora_r"], one.from_text) == (32, f"{other.key}@10")
    assert low.key not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("body", "replaced"),
    [
        ("base: mine.yml", "base=mine.yml"),
        ("hydra: {sweeper: {params: {base: [mine.yml, other.yml]}}}", "base=mine.yml,other.yml"),
        ("hydra: {sweeper: {params: {experiment: [llama3_8b_alpaca], from: [nobody]}}}", "experiment=llama3_8b_alpaca"),
    ],
)
def test_an_origin_on_the_command_line_replaces_a_config_of_the_sweep_file_and_a_note_says_so(
    store: Store, asked: Callable[..., Sequence[Experiment]], capsys: pytest.CaptureFixture[str],
    body: str, replaced: str,
) -> None:  # fmt: skip
    origin = source(store, 10, lora_r=32)
    _sweep_file(body)
    (one,) = asked("-m", "+sweeps=mine", f"from={origin.key}@10")
    assert (one.axolotl["lora_r"], one.from_text) == (32, f"{origin.key}@10")
    printed = " ".join(capsys.readouterr().err.split())
    assert f"note: from={origin.key}@10 replaces {replaced} of the sweep file." in printed
    assert f"write {replaced} on the command line, too" in printed
    assert "mine.yml: " not in printed, "the file is not read"


def test_a_base_on_the_command_line_replaces_that_of_a_sweep_file(
    asked: Callable[..., Sequence[Experiment]], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mine.yml").write_text("base_model: m\ndatasets: [{path: a.jsonl, type: alpaca}]\nlora_r: 3\n")
    _sweep_file("base: nothing.yml")
    (one,) = asked("-m", "+sweeps=mine", "base=mine.yml")
    assert (one.axolotl["lora_r"], one.overrides) == (3, ("base=mine.yml", "+sweeps=mine"))
    assert "nothing.yml" not in capsys.readouterr().err


def test_an_origin_in_the_body_of_a_sweep_file_needs_another_config(
    store: Store, asked: Callable[..., Sequence[Experiment]]
) -> None:
    """Hydra reads the body when it is too late for the config of the run."""
    origin = _recorded(store)
    _sweep_file(f"from: '{origin.key}'\nseed: 3")
    for words in ([], [f"from={origin.key}"]):
        with pytest.raises(SweepError, match=r"mine\.yaml: from: in the body .* hydra\.sweeper\.params"):
            asked("-m", "+sweeps=mine", *words)
    (chosen,) = asked("-m", "+sweeps=mine", "experiment=llama3_8b_alpaca")
    assert chosen.from_text == origin.key


def test_a_base_next_to_it_says_what_to_start_from(
    store: Store, asked: Callable[..., Sequence[Experiment]], capsys: pytest.CaptureFixture[str]
) -> None:
    origin = _recorded(store)
    Path("mine.yml").write_text("base_model: m\ndatasets: [{path: a.jsonl, type: alpaca}]\nlora_r: 3\n")
    (one,) = asked(f"from={origin.key}", "base=mine.yml")
    assert (one.axolotl["lora_r"], one.from_text) == (3, origin.key)
    assert "that run's config" not in capsys.readouterr().err


def test_rows_are_read_where_they_were_until_they_change_and_then_from_the_copy_in_the_store(
    store: Store, asked: Callable[..., Sequence[Experiment]]
) -> None:
    origin, rows = _recorded(store), Path("rows.jsonl").absolute()
    rows.write_text("{}\n")
    identity = ContentHashes(store.cache / "hashes.json").of(rows)
    folder, copy = store.folder(StepKind.TRAIN, origin.key), store.inputs / f"{identity[:16]}.jsonl"
    copy.parent.mkdir(parents=True)
    copy.write_text("{}\n")
    found = {"at": "datasets.0.path", "text": str(rows), "identity": identity}
    folder.identity.write_text(json.dumps(json.loads(folder.identity.read_text()) | {"inputs": [found]}))
    folder.config.write_text(json.dumps({"datasets": [{"path": f"inputs/{copy.name}"}]}))
    assert asked(f"from={origin.key}")[0].axolotl["datasets"][0]["path"] == str(rows)
    rows.write_text('{"other": 1}\n')
    assert asked(f"from={origin.key}")[0].axolotl["datasets"][0]["path"] == str(copy)


@pytest.mark.parametrize("text", ["nobody", "@10"])
def test_a_run_that_does_not_exist_is_refused_by_its_name(
    asked: Callable[..., Sequence[Experiment]], text: str
) -> None:
    with pytest.raises(SweepError, match=f"from={text}"):
        asked(f"from={text}")


def test_a_run_of_a_mirror_continues_on_modal(tmp_path: Path, ask: Callable[..., Any], store: Store) -> None:
    mirror = Store(store.root / "modal")
    origin = _recorded(mirror, gpu=Gpu("h100", 1))
    (one,) = ask(f"from={origin.key}", f"store={store.root}").experiments
    assert one.executor.type == "modal"
    assert mirror.folder(StepKind.TRAIN, origin.key).identity.exists()
