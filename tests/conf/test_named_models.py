"""A shipped model has the same verdict and price, whichever way its name got into the config. Without the network."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from modal_app.store.layout import Store
from runner.command.import_config import import_config
from runner.config.known_names import size_named
from runner.config.shipped import shipped_root
from runner.config.vocabulary import read_vocabulary
from runner.cost.prices import rates_from
from runner.errors import SweepError
from runner.estimate.plan import plan_cost
from runner.estimate.types import Pool
from runner.keys.identity import identify_run
from runner.preflight.memory import memory_of, printed_memory
from runner.types import Experiment
from tests.read_yaml import read_yaml
from tests.runner.builders import LOCK, plan

MODELS = read_vocabulary().groups["model"]
ASKED = ["gpu=h100", "gpu.count=8", "executor=modal"]
CONFIG = ["lora=r16", "training=default", "fsdp=fsdp2", "dataset=alpaca_messages_2k", "max_steps=10"]
SAME = ["sequence_len=1024", "micro_batch_size=2", "gradient_accumulation_steps=1", "num_epochs=1"]
"""The tiny model sets its own."""

Answer = tuple[Any, Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(autouse=True)
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the name leads to the facts: there is no cache, and no hub."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HF_HOME", str(folder / "nothing"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")


def answers(experiments: Sequence[Experiment], store: Store) -> list[Answer]:
    """The memory verdicts and the price of each."""
    runs = [identify_run(one, (), trainer_lock=LOCK) for one in experiments]
    table = experiments[0].prices
    assert table is not None
    cost = plan_cost(
        plan(runs, store),
        store,
        [],
        rates_from(table, {}, datetime.date.fromisoformat(table.date)),
        {one.key: Pool("h100", None) for one in runs},
    )
    by_key = {one.key: (one.dollars, one.reason) for one in cost.runs}
    return [(printed_memory(memory_of(run.experiment)), by_key[run.key]) for run in runs]


@pytest.fixture(scope="module")
def known() -> dict[str, Answer]:
    return {}


@pytest.fixture
def by_option(ask: Callable[..., Any], folder: Path, known: dict[str, Answer]) -> Mapping[str, Answer]:
    """The runs of `model=OPTION`, composed once; their configs are written as files, for base= and import."""
    if not known:
        requested = ask("-m", f"model={','.join(MODELS)}", *ASKED, *CONFIG, *SAME)
        for option, one in zip(MODELS, requested.experiments, strict=True):
            (folder / f"{option}.yml").write_text(yaml.safe_dump(dict(one.axolotl)))
        known |= dict(zip(MODELS, answers(requested.experiments, Store(folder / "store")), strict=True))
    return known


@pytest.mark.medium
def test_every_model_has_an_answer(by_option: Mapping[str, Answer]) -> None:
    assert {one.verdict for memory, _ in by_option.values() for one in memory} > {"FITS", "UNKNOWN"}
    assert [option for option, (_, (dollars, _)) in by_option.items() if dollars is None] == []


@pytest.mark.medium
def test_a_base_with_a_models_name_has_the_same_answer(
    ask: Callable[..., Any], by_option: Mapping[str, Answer], folder: Path
) -> None:
    files = ",".join(f"{option}.yml" for option in MODELS)
    found = answers(ask("-m", f"base={files}", *ASKED, "prices=modal").experiments, Store(folder / "store"))
    assert dict(zip(MODELS, found, strict=True)) == by_option


@pytest.mark.medium
def test_an_imported_config_has_the_same_answer(
    ask: Callable[..., Any], by_option: Mapping[str, Answer], folder: Path
) -> None:
    for option in MODELS:
        import_config(f"{option}.yml", name=f"my_{option}", config_dir="mine", force=True)
    options = ",".join(f"my_{option}" for option in MODELS)
    requested = ask("--config-dir", "mine", "-m", f"experiment={options}", *ASKED)
    assert dict(zip(MODELS, answers(requested.experiments, Store(folder / "store")), strict=True)) == by_option


def test_a_name_next_to_another_models_options_has_the_same_answer(
    ask: Callable[..., Any], by_option: Mapping[str, Answer], folder: Path
) -> None:
    names = [read_yaml(folder / f"{option}.yml")["base_model"] for option in MODELS]
    shouted = ",".join(name if Path(name).exists() else name.upper() for name in names)
    requested = ask("-m", f"base_model={shouted}", *ASKED, *CONFIG, *SAME)
    assert dict(zip(MODELS, answers(requested.experiments, Store(folder / "store")), strict=True)) == by_option


def test_a_copy_of_a_model_has_its_answer(ask: Callable[..., Any], folder: Path) -> None:
    (one,) = ask("base_model=meta-llama/Llama-3.1-8B", *ASKED, *CONFIG, *SAME).experiments
    (two,) = ask("model=llama3_1_8b", *ASKED, *CONFIG, *SAME).experiments
    store = Store(folder / "store")
    assert answers([one], store) == answers([two], store)


def test_an_unknown_shape_is_explained_in_the_verdict_the_price_and_for_an_automatic_gpu(
    ask: Callable[..., Any], folder: Path
) -> None:
    (one,) = ask("base_model=nobody/knows", *ASKED, *CONFIG, *SAME).experiments
    ((memory, (dollars, reason)),) = answers([one], Store(folder / "store"))
    why = "the shape of nobody/knows is unknown: the hub did not answer"
    assert [(one.verdict, one.reason.startswith(why)) for one in memory] == [("UNKNOWN", True)]
    assert dollars is None
    assert reason.startswith(why)
    assert reason.endswith("and no similar run was trained here")
    with pytest.raises(SweepError, match=f"gpu=auto: {why}.* Name the GPU"):
        ask("base_model=nobody/knows", "gpu=auto")


def test_a_users_file_describes_a_model_and_a_wrong_one_is_skipped(ask: Callable[..., Any], folder: Path) -> None:
    own = folder / "own" / "model"
    own.mkdir(parents=True)
    shape = read_yaml(shipped_root() / "conf/model/qwen3_8b.yaml")["model"]
    for number, changes in enumerate([{"layers": "many"}, {"layers": True}, {"strange": 1}, {"layers": 40}]):
        node = {"model": shape | {"base_model": "me/mine"} | changes}
        (own / f"own{number}.yaml").write_text("# @package _global_\n" + yaml.safe_dump(node))
    (own / "own_broken.yaml").write_text("model: {base_model: me/mine")
    (one,) = ask("--config-dir", "own", "base_model=Me/Mine", "gpu=h100").experiments
    assert one.model.layers == 40
    with pytest.raises(SweepError, match=r"model\.layers is 'many': a whole number is expected"):
        ask("--config-dir", "own", "model=own0", "gpu=h100")


@pytest.mark.parametrize(
    ("part", "rows"),
    [
        ({}, 2000),
        ({"split": "train[:100]"}, 2000),
        ({"split": "test"}, None),
        ({"split": "train[50%:]"}, None),
        ({"name": "other"}, None),
        ({"shards": 2}, None),
    ],
)
def test_a_datasets_size_is_found_by_its_name_unless_it_is_another_part(part: dict[str, Any], rows: int | None) -> None:
    found = size_named({"path": "Fozziethebeat/alpaca_messages_2k_test", "type": "chat_template", **part})
    assert (found and found.rows) == rows
