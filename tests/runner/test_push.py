"""`axosweep push --dry-run`, and what a push refuses before any request: what would be on the hub, file by file."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import socket
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.utils import httpx

from modal_app.store.layout import StepFolder, Store
from modal_app.store.manifest import listed_files
from modal_app.store.step import Outcome, OutcomeStatus, StepKind
from runner.cli import main
from runner.command import push
from runner.errors import SweepError
from runner.follow_up.steps import merge_step
from runner.follow_up.subjects import subjects
from runner.push.files import Kind, sort_out
from runner.push.hub import Upload, refuse_unready, upload
from runner.push.hub_errors import problem_of
from runner.push.records import card_facts, made_files
from runner.push.tasks import Score, model_index
from runner.serve import here as serve_here
from runner.serve.choice import choose
from tests.printed_json import read_printed
from tests.runner import builders
from tests.runner.pushable import (
    ADAPTER_FILES,
    COMMIT,
    DATA_SHA,
    HUB_BASE,
    LEFT,
    PLACE,
    TOKEN,
    evaluate_on_tasks,
    finished_run,
    weights,
)
from tests.runner.test_hub import Hub, serve
from tests.runner.verdict_rows import row_losses

GOLDEN = Path(__file__).parent / "golden"


def dry(store: Store, *words: str, capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    assert push.main([*words, "--dry-run", "--json", "--store", str(store.root)]) == 0
    printed: dict[str, object] = read_printed("push", capsys.readouterr().out)
    return printed


def golden(name: str, text: str) -> None:
    """`UPDATE_GOLDEN=1` renews them; check the difference then."""
    path, ours = GOLDEN / name, importlib.metadata.version("axosweep")
    text = re.sub(r"\banswers-[0-9a-f]{6}\b", "SWEEP", re.sub(r"\b[0-9a-f]{12}\b", "RUN", text)).replace(
        f"axosweep {ours}", "axosweep VERSION"
    )
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


def listed(printed: dict[str, object]) -> list[str]:
    return [one["name"] for one in printed["files"]]  # type: ignore[attr-defined]


def test_the_card_and_the_files_of_an_adapter_are_these(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    one = finished_run(store)
    printed = dry(store, one.key, "ada/answers", "--license", "apache-2.0", capsys=capsys)
    golden("push_adapter.md", str(printed["card"]))
    assert listed(printed) == ADAPTER_FILES
    assert {one["name"] for one in printed["left"]} == {*LEFT, "checkpoint-50/"}  # type: ignore[attr-defined]


def test_what_tasks_have_measured_is_in_the_card_as_the_hub_specifies_it(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    one = finished_run(store)
    evaluate_on_tasks(store, one)
    printed = dry(store, one.key, "ada/answers", capsys=capsys)
    _, metadata, body = str(printed["card"]).split("---\n", 2)
    arc = {"name": "arc_easy", "type": "allenai/ai2_arc", "config": "ARC-Easy", "split": "test"}
    requested = {"limit": 100, "num_few_shot": 5, "chat_template": False}
    norm = {"type": "acc_norm", "value": 0.25}
    strict = {"type": "exact_match", "value": 0.9453125, "name": "exact_match (strict-match)"}
    of_arc, of_quiz = {"type": "acc", "value": "0.5000 ± 0.0502"}, {"name": "quiz", "type": "quiz"}
    assert yaml.safe_load(metadata)["model-index"] == [
        {
            "name": "answers",
            "results": [
                {"task": {"type": "text-generation"}, "dataset": arc | {"args": requested}, "metrics": [of_arc, norm]},
                {"task": {"type": "text-generation"}, "dataset": of_quiz, "metrics": [strict]},
            ],
        }
    ]
    assert "| arc_easy (limit=100, fewshot=5, plain) | acc | 0.5000 ± 0.0502 |" in body
    assert "| quiz | exact_match (strict-match) | 0.9453 |" in body


def test_the_hubs_own_library_reads_the_card(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    one = finished_run(store)
    evaluate_on_tasks(store, one)
    printed = dry(store, one.key, "ada/answers", "--license", "apache-2.0", capsys=capsys)
    data = ModelCard(str(printed["card"])).data
    assert isinstance(data, ModelCardData)
    assert (data.base_model, data.license, data.library_name) == (HUB_BASE, "apache-2.0", "peft")
    assert [(one.dataset_type, one.metric_type, one.metric_value) for one in data.eval_results or ()] == [
        ("allenai/ai2_arc", "acc", "0.5000 ± 0.0502"),
        ("allenai/ai2_arc", "acc_norm", 0.25),
        ("quiz", "exact_match", 0.9453125),
    ]


def test_two_tasks_on_one_dataset_stay_two() -> None:
    """Grouped by their dataset, as the library does, one would appear under the other's name and settings."""
    dataset = {"path": "openai/gsm8k", "config": "main", "split": "test"}
    requested = [("gsm8k", "", 0.1), ("gsm8k", "limit=8", 0.2), ("gsm8k_cot", "", 0.3)]
    scores = tuple(Score(task, words, "exact_match", "", value, None, dataset) for task, words, value in requested)
    index = model_index("answers", scores)
    assert index
    assert len(index) == 1
    in_a_card: dict[str, Any] = {"model-index": index}
    data = ModelCardData(**in_a_card)
    read = [(one.dataset_name, one.dataset_args, one.metric_value) for one in data.eval_results or ()]
    assert read == [("gsm8k", None, 0.1), ("gsm8k", {"limit": 8}, 0.2), ("gsm8k_cot", None, 0.3)]


def test_a_local_base_model_is_named_by_its_last_part_and_by_its_content(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    one = finished_run(store, base=f"{PLACE}/base")
    card = str(dry(store, one.key, "ada/answers", capsys=capsys)["card"])
    golden("push_local_base.md", card)
    assert "base_model:" not in card.partition("---\n\n")[0], "the hub would look for it"


def test_a_full_fine_tune_goes_as_a_model(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    one = finished_run(store, adapter=None)
    printed = dry(store, one.key, "ada/answers", capsys=capsys)
    assert {"model.safetensors", "config.json", "generation_config.json"} <= set(listed(printed))
    assert "base_model_relation: finetune" in str(printed["card"])
    with pytest.raises(SweepError, match="is a complete model"):
        push.main([one.key, "ada/answers", "--merged", "--dry-run", "--store", str(store.root)])


def test_what_is_shown_names_every_file_with_its_reason(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    one = finished_run(store)
    push.main([one.key, "ada/answers", "--dry-run", "--store", str(store.root)])
    shown = capsys.readouterr().out.partition("</details>")[2].strip()
    golden("push_files.txt", shown + "\n")


@pytest.mark.parametrize("kind", [Kind.ADAPTER, Kind.FULL])
@pytest.mark.parametrize("base", [HUB_BASE, f"{PLACE}/base"])
def test_no_path_and_no_secret_of_the_machine_is_in_what_would_be_sent(store: Store, kind: Kind, base: str) -> None:
    one = finished_run(store, base=base, adapter="lora" if kind is Kind.ADAPTER else None)
    (subject,) = subjects([store], one.key)
    folder = subject.store.folder(StepKind.TRAIN, one.key).model
    sent, _ = sort_out(folder, kind, {"adapter_config.json": {"base_model_name_or_path": "base"}})
    sent += made_files(card_facts(subject, kind, "ada/answers", None), subject, [])
    for file in sent:
        text = file.text if file.source is None else file.source.read_text()
        assert text is not None
        for private in (PLACE, "acme", TOKEN, str(store.root), "is_local"):
            assert private not in text, file.name


def test_the_command_of_a_sweep_names_no_folder_of_any_of_its_runs(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = finished_run(store), builders.run({"learning_rate": 1})
    (plan,) = store.sweeps.glob("*/plan.json")
    rows = f"data.path={PLACE}/answers.jsonl,acme/rows.jsonl model=acme/rows.jsonl-8b"
    described = json.loads(plan.read_text())
    described["command"] = f"axosweep -m {rows} base=acme/a.yml,acme/b.yml '+store=/srv/my acme/out'"
    described["runs"].append({"key": other.key, "data_key": other.data_key, "overrides": []})
    plan.write_text(json.dumps(described))
    identity = store.folder(StepKind.TRAIN, other.key).identity
    identity.parent.mkdir()
    inputs = [{"at": "datasets.0.path", "text": "acme/rows.jsonl", "identity": DATA_SHA}]
    inputs += [{"at": "base_model", "text": "acme/rows.jsonl-8b", "identity": COMMIT}]
    identity.write_text(json.dumps({"inputs": inputs}))
    card = str(dry(store, one.key, "ada/answers", capsys=capsys)["card"])
    assert (
        "axosweep -m data.path=answers.jsonl,rows.jsonl model=acme/rows.jsonl-8b base=a.yml,b.yml '+store=out'" in card
    )


def test_the_loss_in_a_card_is_that_of_the_weights(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    """A run without an evaluation at its beginning, which has stored its best model."""
    one = finished_run(store)
    folder = store.folder(StepKind.TRAIN, one.key)
    folder.config.write_text(yaml.safe_dump({**one.config, "load_best_model_at_end": True}))
    lines = folder.metrics.read_text().splitlines()
    folder.metrics.write_text("\n".join(line for line in lines if '"step": 0' not in line) + "\n")
    losses = row_losses([[0.61]])
    replace(losses, about=replace(losses.about, step=50, eval_loss=0.61)).write(folder.losses)
    card = str(dry(store, one.key, "ada/answers", capsys=capsys)["card"])
    assert "| eval loss | 0.6100 | 50 |\n\nThe weights are those of step 50, not of the last one" in card
    assert "before training" not in card


def test_the_merged_model_is_requested_by_name_and_refused_with_the_command_if_it_is_missing(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    one = finished_run(store)
    with pytest.raises(SweepError, match=f"axosweep merge {one.key}"):
        push.main([one.key, "ada/answers", "--merged", "--dry-run", "--store", str(store.root)])
    merged = merged_folder(store, one.key)
    weights(merged.path / "model", adapter=False)
    merged.done.write_text(Outcome(OutcomeStatus.SUCCEEDED, 1, 0.0, 1.0).to_json())
    printed = dry(store, one.key, "ada/answers", "--merged", capsys=capsys)
    assert "model.safetensors" in listed(printed)
    assert "adapter_model.safetensors" not in listed(printed)
    assert "with a lora adapter merged into it" in str(printed["card"])


def merged_folder(store: Store, key: str) -> StepFolder:
    (subject,) = subjects([store], key)
    return store.folder(StepKind.MERGE, merge_step(subject).step.key)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nosuch", "ada/x"], "There is no run or sweep nosuch"),
        (["RUN", "answers"], "OWNER/NAME"),
        (["ada/answers", "RUN"], "The run comes first: axosweep push RUN ada/answers"),
        (["RUN"], "the following arguments are required: OWNER/NAME"),
        (["RUN", "ada/answers/x"], "OWNER/NAME"),
        (["RUN", "ada/an swers"], "OWNER/NAME"),
        (["RUN", "ada/a..b"], "OWNER/NAME"),
        (["RUN", "https://huggingface.co/ada/answers"], "OWNER/NAME"),
        (["RUN", "ada/x", "--license", "Apache License 2.0"], "apache-2.0"),
        (["RUN", "ada/x", "--revision", "a..b"], "not the name of a branch"),
        (["RUN", "ada/x", "--message", " "], "--message is empty"),
    ],
)
def test_a_mistake_is_one_clear_message(
    store: Store, words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    one = finished_run(store)
    requested = [one.key if word == "RUN" else word for word in words]
    assert main(["push", *requested, "--dry-run", "--store", str(store.root)]) == 2
    said = capsys.readouterr().err
    assert says.replace("RUN", one.key) in said
    assert said.count("\n") == 1, "one message, no traceback"


def test_a_hub_that_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's own library has no limit."""
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("HF_ENDPOINT", address)
        began = time.monotonic()
        with pytest.raises(SweepError) as caught:
            refuse_unready(0.2)
    assert time.monotonic() - began < 3
    assert f"The hub does not answer at {address} (timed out), so nothing was pushed." in str(caught.value)
    assert "--dry-run shows what would be pushed" in str(caught.value)


def test_a_hub_that_is_gone_in_the_middle_is_one_clear_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))  # bound and not listening: refused at once
        address = f"http://127.0.0.1:{unheard.getsockname()[1]}"
        monkeypatch.setenv("HF_ENDPOINT", address)
        with pytest.raises(
            SweepError, match=rf"The hub does not answer at {address} \(.*Connection refused\)\. The same"
        ):
            upload(Upload("ada/answers", "main", False, False, "one", "a" * 12, "adapter", {}, {"README.md": "x"}))


def test_a_hub_that_answers_with_something_else_is_one_clear_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with serve(Hub(body=b"{}")) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        with pytest.raises(SweepError, match=f"The hub at {address} gave an unexpected answer"):
            upload(Upload("ada/answers", "main", False, False, "one", "a" * 12, "adapter", {}, {"README.md": "x"}))


def test_what_failed_is_reported_without_the_password_of_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://ada:hunter22@hub.example")
    printed = problem_of(httpx.ConnectError("Connection refused"), "ada/answers")
    assert printed.startswith("The hub does not answer at https://ada:***@hub.example (Connection refused).")


def test_an_unfinished_run_is_not_pushed(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    one = builders.run({"adapter": "lora", "learning_rate": 1})
    builders.open_sweep(store, [one])
    builders.finish(store, StepKind.TRAIN, one.key, OutcomeStatus.STOPPED)
    assert main(["push", one.key, "ada/x", "--dry-run", "--store", str(store.root)]) == 2
    assert "has not finished" in capsys.readouterr().err


def test_a_damaged_model_is_neither_pushed_nor_served(store: Store) -> None:
    one = finished_run(store)
    folder = store.folder(StepKind.TRAIN, one.key)
    folder.manifest.write_text(json.dumps({"files": listed_files(folder.model)}))
    weights_file = folder.model / "adapter_model.safetensors"
    weights_file.write_bytes(bytes(weights_file.stat().st_size))
    says = r"the model in .* is damaged: the content of adapter_model\.safetensors is not the one that was written"
    with pytest.raises(SweepError, match=f"Nothing is pushed: {says}"):
        push.main([one.key, "ada/answers", "--dry-run", "--store", str(store.root)])
    with pytest.raises(SweepError, match=f"Nothing is served: {says}"):
        serve_here.serve(choose([store], [one.key]), "", "127.0.0.1", 0, max_body=1 << 20, as_json=False)
