"""Every broken config of broken.yaml is reported with its key, what was seen and what was expected, and is not
launched."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from modal_app.cloud.settings import Deployment
from modal_app.store.facts import DataManifest
from modal_app.store.layout import Store
from runner.config.known_names import facts_in
from runner.config.shipped import shipped_root
from runner.environment import trainer_environment
from runner.environment.verdicts import Verdicts
from runner.errors import SweepError
from runner.executors.validator import FreshValidator
from runner.launch.sweep import launch_sweep
from runner.preflight.schema import questions_of
from runner.preflight.stage import Preflight
from runner.request import Action, Request
from runner.types import ExecutorChoice, Experiment, Gpu, ModelFacts
from tests.preflight.sound_base import SOUND
from tests.read_yaml import read_yaml
from tests.runner.builders import experiment

HERE = Path(__file__).resolve().parent


def _modal_node() -> Mapping[str, Any]:
    content = read_yaml(shipped_root() / "conf" / "executor" / "modal.yaml")
    return dict(content["modal"])


BASE: Mapping[str, Any] = {
    **SOUND,
    "lora_mlp_kernel": False,
    "lora_qkv_kernel": False,
    "lora_o_kernel": False,
    "attn_implementation": "sdpa",
    "revision_of_model": "0" * 40,
}
BY_KIND: Mapping[str, list[Mapping[str, Any]]] = read_yaml(HERE / "broken.yaml")
BROKEN = [one for ones in BY_KIND.values() for one in ones]
CASES = [
    pytest.param(one, id=f"{kind}: {json.dumps(one['change'])} {one.get('gpu', '')}")
    for kind, ones in BY_KIND.items()
    for one in ones
]
SOME_COMMIT = "0" * 40
ON_MODAL = ExecutorChoice("modal", warm=False, modal=Deployment.from_node(_modal_node()))
CHAT = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder to which the configs' paths are relative."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "rows.jsonl").write_text(CHAT * 40)
    (folder / "broken.jsonl").write_text(CHAT + "{broken\n")
    (folder / "empty.jsonl").write_text("\n")
    (folder / "talks.jsonl").write_text('{"conversations": []}\n')
    (folder / "empty_folder").mkdir()
    return folder


@pytest.fixture(autouse=True)
def _there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


def _experiment(broken: Mapping[str, Any]) -> Experiment:
    axolotl = {key: value for key, value in {**BASE, **broken["change"]}.items() if value is not None}
    facts = _facts(broken["model"]) if "model" in broken else None
    if facts:
        axolotl["base_model"] = facts.base_model
    kind = broken.get("gpu", "h100")
    made = experiment(
        {**axolotl, **_pinned(axolotl)},
        gpu=Gpu(kind, broken.get("count", 1 if "gpu" in broken else 8)),
        executor=ExecutorChoice("local") if kind == "cpu" else ON_MODAL,
        overrides=["this", "one"],
    )
    return replace(made, model=facts)


def _pinned(axolotl: Mapping[str, Any]) -> dict[str, Any]:
    """Hub datasets at a commit, so that the hub is not used."""
    return {
        key: [
            {**dataset, "revision": SOME_COMMIT} if "/" in str(dataset.get("path", "")) else dataset
            for dataset in axolotl[key]
        ]
        for key in ("datasets", "test_datasets")
        if key in axolotl
    }


def _facts(name: str) -> ModelFacts:
    content = read_yaml(shipped_root() / "conf" / "model" / f"{name}.yaml")
    return facts_in(content["model"])


def test_there_are_enough_of_every_kind() -> None:
    assert min(map(len, BY_KIND.values())) >= 6
    assert len(BROKEN) >= 60
    assert sum(one["accepted"] for one in BROKEN) >= len(BROKEN) / 2


@pytest.mark.parametrize("broken", CASES)
def test_what_axolotl_accepts_is_checked_without_it(broken: Mapping[str, Any]) -> None:
    preflight = Preflight([_experiment(broken)], Verdicts(None, ""), prepared=[DataManifest()])
    if not broken["accepted"] or "has no class" in broken["told"]:
        return
    with pytest.raises(SweepError) as refused:
        preflight.refuse_blocked()
    assert all(piece in str(refused.value) for piece in broken["told"]), refused.value


@pytest.fixture(scope="module")
def verdicts(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Verdicts:
    """Axolotl's own verdicts on all of them, in the cache of a store."""
    folder = tmp_path_factory.mktemp("store")
    known = Verdicts(folder / "cache" / "verdicts.json", trainer_environment.identity(None))
    with contextlib.chdir(place):
        experiments = [_experiment(one) for one in BROKEN]
        Preflight(experiments, known).ask(FreshValidator(trainer_environment.find()), experiments)
    return known


@pytest.mark.slow
@pytest.mark.parametrize("broken", CASES)
def test_axolotl_itself_accepts_what_is_said_to_be_accepted(verdicts: Verdicts, broken: Mapping[str, Any]) -> None:
    answers = [verdicts.get(question) for question in questions_of(_experiment(broken))]
    refusals = [problem for answer in answers for problem in (answer or {"problems": []})["problems"]]
    by_its_schema = [problem["message"] for problem in refusals if "kind" not in problem]  # the others are tested here
    assert (by_its_schema == []) is broken["accepted"], by_its_schema


@pytest.mark.slow
@pytest.mark.parametrize("broken", CASES)
def test_a_broken_config_is_reported_and_reaches_no_executor(verdicts: Verdicts, broken: Mapping[str, Any]) -> None:
    assert verdicts.memory is not None
    store = Store(verdicts.memory.parent.parent)
    request = Request(Action.LAUNCH, "broken", str(store.root), json=False)
    with pytest.raises(SweepError) as refused:
        launch_sweep([_experiment(broken)], request)
    assert all(piece in str(refused.value) for piece in broken["told"]), refused.value
    assert not [*store.root.rglob("runs"), *store.root.rglob("sweeps")]
