from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.config.fields import axolotl_fields
from runner.errors import SweepError
from runner.keys.content import ContentHashes
from runner.keys.identity import (
    ADDRESS_PREFIXES,
    ADDRESSES,
    TRAIN_ONLY,
    canonical,
    identify_run,
    preprocess_config,
    split_by_gpu_type,
)
from runner.keys.inputs import find_inputs, identify_input
from runner.types import DataChoice, ExecutorChoice, Gpu, Input, InputKind, Run, TrackingChoice
from tests.runner.builders import LOCK, experiment, run

BASE = run({"sequence_len": 512, "learning_rate": 1e-3, "seed": 42})
ADDRESS_NAMES = {name for name in axolotl_fields().top if name in ADDRESSES or name.startswith(ADDRESS_PREFIXES)}
DEEPSPEED = {"deepspeed"}  # in the data key only together with context parallelism, as in Axolotl's hash

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
configs = st.dictionaries(st.sampled_from(sorted(axolotl_fields().top)), json_values, max_size=5)


def moves(changed: Run, base: Run = BASE) -> str:
    """Which keys are not those of the base: `none`, `run`, `data`, `both`."""
    match changed.key != base.key, changed.data_key != base.data_key:
        case True, True:
            return "both"
        case True, False:
            return "run"
        case False, True:
            return "data"
    return "none"


def moved_by(names: set[str]) -> Mapping[str, str]:
    return {name: moves(run({**BASE.experiment.axolotl, name: "another value"})) for name in sorted(names)}


def test_a_train_only_key_moves_the_run_and_not_the_data() -> None:
    moved = moved_by(set(TRAIN_ONLY))
    assert {name: what for name, what in moved.items() if what != "run"} == {}


def test_an_address_moves_nothing() -> None:
    moved = moved_by(ADDRESS_NAMES | ADDRESSES)
    assert len(ADDRESS_NAMES) > 10
    assert {name: what for name, what in moved.items() if what != "none"} == {}


def test_every_other_field_of_axolotl_moves_the_data_and_so_the_run() -> None:
    others = set(axolotl_fields().everywhere) - TRAIN_ONLY - ADDRESS_NAMES - DEEPSPEED
    moved = moved_by(others)
    assert len(others) > 200
    assert {name: what for name, what in moved.items() if what != "both"} == {}


def test_the_lists_hold_only_names_that_axolotl_knows() -> None:
    assert sorted((TRAIN_ONLY | ADDRESSES) - set(axolotl_fields().everywhere)) == []


@pytest.mark.parametrize(("parallel", "what"), [(None, "run"), (1, "run"), (2, "both")])
def test_deepspeed_moves_the_data_only_with_context_parallelism(parallel: int | None, what: str) -> None:
    base = run({"context_parallel_size": parallel})
    assert moves(run({"context_parallel_size": parallel, "deepspeed": "inputs/zero2.json"}), base) == what


def test_ranks_move_the_run_and_the_kind_of_gpu_moves_nothing() -> None:
    config = BASE.experiment.axolotl
    assert moves(run(config, gpu=Gpu("cpu", 2))) == "run"
    assert moves(run(config, gpu=Gpu("a100_80gb", 1))) == "none"


def test_what_a_run_may_fall_back_on_moves_nothing() -> None:
    config = BASE.experiment.axolotl
    assert moves(run(config, gpu=Gpu("h100", 1, ("a100_80gb",)))) == "none"


def test_a_sweep_over_gpus_has_a_run_for_each_and_shares_their_dataset() -> None:
    gpus = [Gpu("h100", 2), Gpu("a100_80gb", 2), Gpu("h100", 2, ("h200",)), Gpu("h100", 4)]
    requested = split_by_gpu_type([run({"seed": 1}, gpu=gpu) for gpu in gpus])
    keys = [one.key for one in requested]
    assert len(set(keys)) == 3
    assert keys[0] == keys[2], "what will do as well is no question"
    assert keys[3] == run({"seed": 1}, gpu=gpus[3]).key, "requested on one kind only, it is the run that it always was"
    assert len({one.data_key for one in requested}) == 1


def test_executor_tracking_and_the_words_of_the_command_move_nothing() -> None:
    config = BASE.experiment.axolotl
    assert moves(run(config, executor=ExecutorChoice("modal", parallel=3, warm=False))) == "none"
    assert moves(run(config, tracking=TrackingChoice("online", "other", "team", ("tag",)))) == "none"
    assert moves(run(config, overrides=["learning_rate=1e-3"])) == "none"


def test_without_a_data_seed_the_seed_moves_both() -> None:
    assert moves(run({**BASE.experiment.axolotl, "seed": 43})) == "both"


def test_with_a_data_seed_the_seed_moves_only_the_run_and_the_data_seed_moves_both() -> None:
    config = BASE.experiment.axolotl
    base = run(config, data=DataChoice(seed=1))
    assert moves(run({**config, "seed": 43}, data=DataChoice(seed=1)), base) == "run"
    assert moves(run(config, data=DataChoice(seed=2)), base) == "both"


def test_a_data_seed_equal_to_the_seed_prepares_the_same_dataset() -> None:
    """Preprocessing would do exactly the same, so it is not done twice."""
    config = BASE.experiment.axolotl
    assert run(config, data=DataChoice(seed=42)).data_key == BASE.data_key


def test_preprocessing_reads_the_data_seed_and_training_its_own() -> None:
    seeded = run({"seed": 42}, data=DataChoice(seed=1))
    assert preprocess_config(seeded)["seed"] == 1
    assert seeded.config["seed"] == 42
    assert preprocess_config(run({"seed": 42}))["seed"] == 42


def test_another_trainer_lock_moves_both() -> None:
    assert moves(identify_run(BASE.experiment, (), trainer_lock=f"not {LOCK}")) == "both"


@given(configs, st.randoms())
def test_the_order_of_keys_moves_nothing(config: dict[str, Any], random: Any) -> None:
    names = list(config)
    random.shuffle(names)
    assert moves(run({name: config[name] for name in names}), run(config)) == "none"


@given(st.sampled_from(["learning_rate", "sequence_len"]), st.integers(-(2**53), 2**53))
def test_a_whole_float_is_the_integer(name: str, value: int) -> None:
    assert moves(run({name: float(value)}), run({name: value})) == "none"


@given(json_values, json_values)
def test_two_values_that_differ_have_two_keys(one: Any, other: Any) -> None:
    same = repr(canonical(one)) == repr(canonical(other))
    assert (run({"sequence_len": one}).key == run({"sequence_len": other}).key) is same


@pytest.mark.parametrize(("one", "other"), [(True, 1), (False, 0), (None, False), ("1", 1), ([], None), ("", None)])
def test_values_that_python_or_yaml_could_mix_up_stay_apart(one: Any, other: Any) -> None:
    assert moves(run({"learning_rate": one}), run({"learning_rate": other})) == "run"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), date(2026, 1, 1), b"bytes", {1, 2}, Path("x")])
def test_a_value_without_a_canonical_form_is_refused_by_its_name_in_the_config(value: Any) -> None:
    with pytest.raises(SweepError, match=r"^axolotl\.datasets\.0\.shards "):
        run({"datasets": [{"path": "x", "shards": value}]})


def identified(config: dict[str, Any], memory: Path) -> Run:
    hashes = ContentHashes(memory / "hashes.json")
    inputs = tuple(identify_input(found, config, hashes) for found in find_inputs(config))
    return identify_run(experiment(config), inputs, trainer_lock=LOCK)


def with_dataset(path: Path) -> dict[str, Any]:
    return {"datasets": [{"path": str(path), "type": "alpaca"}]}


def test_the_same_bytes_under_another_path_are_the_same_run(tmp_path: Path) -> None:
    one, other = tmp_path / "one.jsonl", tmp_path / "folder" / "other.jsonl"
    other.parent.mkdir()
    for path in (one, other):
        path.write_text('{"instruction": "x"}\n')
    first, second = identified(with_dataset(one), tmp_path), identified(with_dataset(other), tmp_path)
    assert moves(second, first) == "none"
    assert first.config == second.config
    assert str(tmp_path) not in str(first.config)


def test_other_bytes_under_the_same_path_are_another_dataset(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"instruction": "x"}\n')
    before = identified(with_dataset(path), tmp_path)
    path.write_text('{"instruction": "y"}\n')
    assert moves(identified(with_dataset(path), tmp_path), before) == "both"


def test_a_base_model_that_changed_is_another_run(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    before = identified({"base_model": str(model)}, tmp_path)
    (model / "config.json").write_text("{ }")
    assert moves(identified({"base_model": str(model)}, tmp_path), before) == "both"


def hub_dataset(commit: str | None, revision: str | None = None) -> Run:
    entry = {"path": "owner/rows"} | ({"revision": revision} if revision else {})
    found = Input("datasets.0.path", "owner/rows", InputKind.HUB, commit)
    return run({"datasets": [entry]}, inputs=[found])


def test_a_hub_revision_enters_the_key_as_its_commit() -> None:
    base = hub_dataset("a" * 40)
    assert base.config["datasets"] == [{"path": "owner/rows", "revision": "a" * 40}]
    assert moves(hub_dataset("a" * 40, revision="v1.0"), base) == "none"
    assert moves(hub_dataset("b" * 40), base) == "both"


def test_a_base_model_from_the_hub_is_pinned_to_its_commit() -> None:
    found = Input("base_model", "owner/model", InputKind.HUB, "c" * 40)
    pinned = run({"base_model": "owner/model", "revision_of_model": "main"}, inputs=[found])
    assert pinned.config == {"base_model": "owner/model", "revision_of_model": "c" * 40}


def test_an_unresolved_hub_name_can_still_be_shown() -> None:
    assert hub_dataset(None).config["datasets"] == [{"path": "owner/rows"}]


def test_identifying_leaves_the_experiment_as_it_was() -> None:
    hub_dataset("a" * 40)
    config = {"datasets": [{"path": "owner/rows"}]}
    run(config, inputs=[Input("datasets.0.path", "owner/rows", InputKind.HUB, "a" * 40)])
    assert config == {"datasets": [{"path": "owner/rows"}]}


def test_keys_are_pinned() -> None:
    """With a changed key, every finished run is paid for again. If this fails on purpose, say so in CHANGELOG.md."""
    assert (BASE.key, BASE.data_key) == ("05060a0481bb", "bb8b558721d7")
