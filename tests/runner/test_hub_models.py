"""A model's shape from the hub: at the commit of the run, once for each commit, and a reason if there is none."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runner.keys import hub_commits
from runner.keys.hub_models import MOST_BYTES, hub_model, weights_in
from runner.memory.estimate import Verdict
from runner.memory.model_facts import facts_of
from runner.preflight.memory import facts_for, memory_of
from runner.types import Experiment, Gpu
from tests.hub_server import COMMIT, Hub, serve_hub
from tests.runner.builders import experiment
from tests.runner.memory_points import LLAMA_8B
from tests.runner.test_hub import Hub as OneAnswer
from tests.runner.test_hub import serve
from tests.runner.test_memory import LORA
from tests.runner.test_memory_facts import LLAMA

NAME = "someone/llama"


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in ("HF_HUB_OFFLINE", "HF_TOKEN_PATH", "HF_HUB_CACHE", "HF_ASSETS_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    forget()
    yield
    forget()


def forget() -> None:
    """Forget what this process remembers, as if a new one began."""
    hub_model.cache_clear()
    hub_commits.resolve.cache_clear()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LLAMA))
    with serve_hub(NAME, folder) as served:
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        yield served


def run(gpu: str = "h100", **axolotl: Any) -> Experiment:
    return experiment({**LORA, "base_model": NAME, **axolotl}, gpu=Gpu(gpu, 1))


def stored(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "home").rglob("*.json"))


def test_a_model_of_the_hub_has_a_verdict_and_each_commit_is_fetched_once(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = f"models/{NAME}/config.json"
    assert [one.verdict for one in memory_of(run())] == [Verdict.FITS]
    for _ in range(2):  # in this process, and in the next
        facts = facts_of(NAME, ask_hub=True).facts
        assert facts is not None
        assert replace(facts, base_model="", source="") == replace(LLAMA_8B, base_model="", source="", context=8192)
        assert facts.source == f"{hub.url}/{NAME}/blob/{COMMIT}/config.json"
        forget()
    assert hub.asked[config] == 1
    assert [file.stem for file in stored(tmp_path)] == [COMMIT]
    hub.add(NAME, tmp_path / "model", commit="d00d" * 10)
    assert facts_of(NAME, ask_hub=True).facts is not None
    assert hub.asked[config] == 2
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    forget()
    assert facts_of(NAME, COMMIT, ask_hub=True).facts is not None
    assert not any("secret" in file.read_text() for file in (tmp_path / "home").rglob("*") if file.is_file())


def test_the_hub_is_not_asked_for_a_cpu_or_for_a_model_that_is_known(hub: Hub) -> None:
    assert facts_for(run("cpu")).facts is None
    assert facts_for(replace(run(), model=LLAMA_8B)).facts is LLAMA_8B
    assert facts_of("no name", ask_hub=True).facts is None
    assert facts_of("gpt2", ask_hub=True).facts is None
    assert not hub.asked
    assert not hub.refused


def test_a_damaged_memory_is_fetched_again(hub: Hub, tmp_path: Path) -> None:
    for content in ("", "[]", '{"config": 3}', '{"config": {}, "counted": 1}'):
        assert facts_of(NAME, ask_hub=True).facts is not None
        (file,) = stored(tmp_path)
        file.write_text(content)
        forget()
    assert facts_of(NAME, ask_hub=True).facts is not None
    assert hub.asked[f"models/{NAME}/config.json"] == 5


def test_a_home_that_cannot_be_written_to_costs_only_the_memory(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    assert facts_of(NAME, ask_hub=True).facts is not None


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (OneAnswer(401), "the hub answered 401 for config.json: the model is gated or private. Accept its terms"),
        (OneAnswer(403), "set HF_TOKEN or run `hf auth login`"),
        (OneAnswer(404), "the hub answered 404 for config.json"),
        (OneAnswer(body=b"<html>"), "not valid JSON"),
        (OneAnswer(body=b"[1]"), "not a JSON object"),
        (OneAnswer(body=b"[" * 100_000), "not valid JSON"),
        (OneAnswer(body=b" " * (MOST_BYTES + 1)), "larger than 1,048,576 bytes"),
        (OneAnswer(body=b'{"model_type": {}}'), "does not have the usual sizes"),
        (OneAnswer(moved_to="http://127.0.0.1:9"), "the hub did not answer"),
    ],
)
def test_an_answer_that_says_nothing_is_a_reason(
    answer: OneAnswer, why: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with serve(answer) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        (one,) = memory_of(run(revision_of_model=COMMIT))
    assert one.verdict is Verdict.UNKNOWN
    assert one.reason.startswith("the shape of someone/llama is unknown: ")
    assert why in one.reason
    assert "secret" not in one.reason


def test_a_hub_that_is_silent_or_not_there_is_a_reason_in_a_short_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.keys.hub_models.TIMEOUT_S", 0.2)
    monkeypatch.setattr("runner.keys.hub_commits.TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert "the hub did not answer" in facts_of(NAME, COMMIT, ask_hub=True).problem
    assert "the hub did not answer" in facts_of("other/name", ask_hub=True).problem
    forget()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert facts_of(NAME, ask_hub=True).problem == f"the shape of {NAME} is unknown: HF_HUB_OFFLINE is set"


def test_an_answer_that_drips_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.keys.hub_models.TIMEOUT_S", 0.5)
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
                while not done.wait(0.03):
                    try:
                        connection.sendall(b" ")
                    except OSError:
                        return

        thread = threading.Thread(target=drip)
        thread.start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        problem = facts_of(NAME, COMMIT, ask_hub=True).problem
        done.set()
        thread.join()
    assert "the hub did not answer within" in problem


def test_the_weights_of_another_kind_are_those_that_the_hub_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = {"parameters": {"BF16": 9_000_000_000, "F32": 5}, "total": 9_000_000_005}
    said = {"id": NAME, "sha": COMMIT, **LLAMA, "model_type": "strange", "safetensors": numbers}
    answer, found = OneAnswer(body=json.dumps(said).encode()), []
    with serve(answer) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        for _ in range(2):
            found.append(facts_of(NAME, ask_hub=True).facts)
            forget()
        (one,) = memory_of(run())
    assert len([path for path in answer.asked if path.endswith("config.json")]) == 1
    assert found[0] is not None
    assert found[0] == found[1]
    assert found[0].parameters == 9_000_000_005
    assert found[0].active_parameters == 9_000_000_005 - 128256 * 4096
    assert one.reason == "the memory of a model with layers of the kind strange is not estimated"


@pytest.mark.parametrize(
    "summary",
    [None, [], {}, {"parameters": {}}, {"parameters": {"U8": 5}}, {"parameters": {"BF16": "5"}},
     {"parameters": {"BF16": -5}}, {"parameters": {"BF16": True}}, {"parameters": 5}, {"total": 5}],
)  # fmt: skip
def test_a_summary_of_packed_or_wrong_numbers_counts_nothing(summary: Any) -> None:
    assert weights_in(summary) is None
