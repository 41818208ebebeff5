"""`axosweep serve` on this machine, with OpenAI's own client, trained runs and a loaded model."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from modal_app.serving.spec import SERVED
from modal_app.store.layout import Store
from modal_app.store.sources import RUN
from modal_app.store.step import StepKind
from runner.environment import trainer_environment
from tests.end_to_end.axosweep import Axosweep, kill, kill_all, wait_until

pytestmark = pytest.mark.slow

CLIENT = Path(__file__).with_name("openai_client.py")
PROMPTS = Path(__file__).parents[2] / "tiny" / "data" / "prompts.jsonl"
FACTS = [json.loads(line) for line in PROMPTS.read_text().splitlines()][:24]
TOKEN = "what-nobody-writes-down"


@dataclass(frozen=True)
class Client:
    """OpenAI's own client, in one process for all servers, since its import takes longer than the answers."""

    process: subprocess.Popen[str]

    def ask(self, url: str, key: str, requests: Any) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"url": url, "key": key, "requests": requests}) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, "the client has ended"
        return json.loads(answer)


@dataclass(frozen=True)
class Serving:
    process: subprocess.Popen[str]
    told: dict[str, Any]
    client: Client

    @property
    def url(self) -> str:
        return str(self.told["url"])

    def ask(self, requests: Any, key: str = "none") -> Any:
        return self.client.ask(self.url, key, requests)


def start(axosweep: Axosweep, client: Client, *words: str) -> Serving:
    """Returns when the server accepts requests."""
    process = subprocess.Popen(
        axosweep._command(("serve", *words, "--json")), cwd=axosweep.folder, env=axosweep.variables(),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    told = ""
    while not told.endswith("}\n") or told.count("{") != told.count("}"):
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        told += line
    return Serving(process, json.loads(told), client)


def children(pid: int) -> list[int]:
    """The processes that it has started and not reaped."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def working_in(folder: Path) -> list[int]:
    """The processes with this working directory."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.readlink(process / "cwd") == str(folder):
                found.append(int(process.name))
    return found


def knows_token(pid: int) -> bool:
    """Whether a process of the trainer was started with the token. This cannot be asked of a fork: the system shows the
    environment of its template."""

    def line() -> bytes:
        return Path(f"/proc/{pid}/cmdline").read_bytes()

    wait_until(lambda: str(RUN).encode() in line(), "its program to start")  # before that, it is a copy of the command
    return TOKEN.encode() in line() + Path(f"/proc/{pid}/environ").read_bytes()


def places() -> set[str]:
    """The folders of running servers."""
    return {path.name for path in Path(tempfile.gettempdir()).glob("axosweep-serve-*")}


def question(fact: dict[str, str], model: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": fact["prompt"]}], "temperature": 0, **more}


def hello(model: str, **more: Any) -> dict[str, Any]:
    return question({"prompt": "Hello"}, model, **more)


@pytest.fixture(scope="module")
def swept(trained: Axosweep, tmp_path_factory: pytest.TempPathFactory) -> Axosweep:
    """A good run and a worse one, in a place without a preloaded trainer: a server would be a fork of it."""
    folder = tmp_path_factory.mktemp("serve")
    (folder / "work").mkdir()
    after = shutil.ignore_patterns("merge", "infer", "evaluate")
    shutil.copytree(trained.store.root, folder / "store", symlinks=True, ignore=after)
    return Axosweep(Store(folder / "store"), folder / "work")


@pytest.fixture(scope="module")
def runs(swept: Axosweep) -> tuple[str, str]:
    """The names of the good run and of the worse one."""
    good, bad = (row["key"] for row in sorted(swept.json("compare")["runs"], key=lambda row: row["final"]))
    return good, bad


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    command = [trainer_environment.find(), CLIENT]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Client(process)


@pytest.fixture(scope="module")
def serving(swept: Axosweep, client: Client) -> Iterator[Serving]:
    """All of them and their base."""
    serving = start(swept, client)
    yield serving
    serving.process.send_signal(signal.SIGINT)
    serving.process.communicate(timeout=30)


def test_every_model_is_listed_by_its_key_and_by_what_people_call_it(serving: Serving, runs: tuple[str, str]) -> None:
    good, bad = runs
    assert serving.ask("models") == ["base", good, "lora_r=32", "best", bad, "lora_r=4"]
    assert [model["names"][0] for model in serving.told["models"]] == ["base", good, bad]


def test_complete_and_streamed_answers_are_those_of_infer(
    serving: Serving, trained: Axosweep, runs: tuple[str, str]
) -> None:
    good, bad = runs
    facts = trained.folder / "facts.jsonl"
    facts.write_text("".join(json.dumps(fact) + "\n" for fact in FACTS))
    inferred = trained.json("infer", "--prompts", str(facts), "--greedy", "--max-tokens", "20")["answers"]
    by_run = {
        model: [row["output"] for row in inferred if row["run"] == run]
        for model, run in (("base", "base"), (good, good), (bad, bad))
    }
    whole = serving.ask([question(fact, model, max_tokens=20) for model in by_run for fact in FACTS])
    streamed = serving.ask([question(fact, model, max_tokens=20, stream=True) for model in by_run for fact in FACTS])
    expected = [text for texts in by_run.values() for text in texts]
    assert [one["text"] for one in whole] == expected
    assert [one["text"] for one in streamed] == expected, "the pieces together are the answer"
    assert [one["finish"] for one in streamed] == [one["finish"] for one in whole]
    assert by_run["base"] != by_run[good] != by_run[bad]
    right = [text == fact["answer"] for text, fact in zip(by_run[good], FACTS, strict=True)]
    assert sum(right) > 0.6 * len(right)


def test_models_with_requests_at_the_same_time_answer_as_themselves(serving: Serving, runs: tuple[str, str]) -> None:
    models = ("base", *runs)
    apart = [serving.ask([question(fact, model, max_tokens=8) for fact in FACTS[:8]]) for model in models]
    mixed = serving.ask([question(fact, model, max_tokens=8) for fact in FACTS[:8] for model in models])
    assert [one["text"] for one in mixed] == [one["text"] for answers in zip(*apart, strict=True) for one in answers]


def test_the_sampling_settings_of_a_request_are_used(serving: Serving, runs: tuple[str, str]) -> None:
    plain, short, stopped, usage, one, again, other, narrow, likeliest = serving.ask(
        [
            question(FACTS[0], "best"),
            question(FACTS[0], "best", max_tokens=1),
            question(FACTS[0], "best", stop=[FACTS[0]["answer"][2:]], stream=True),
            question(FACTS[0], "best", stream=True, stream_options={"include_usage": True}),
            hello(runs[1], temperature=2, max_tokens=24, seed=1),
            hello(runs[1], temperature=2, max_tokens=24, seed=1),
            hello(runs[1], temperature=2, max_tokens=24, seed=2),
            hello(runs[1], temperature=2, max_tokens=24, seed=3, top_p=1e-6),
            hello(runs[1], max_tokens=24),
        ]
    )
    assert (plain["text"], plain["finish"]) == (FACTS[0]["answer"], "stop")
    assert short["finish"] == "length"
    assert short["usage"]["completion_tokens"] == 1
    assert (stopped["text"], stopped["finish"]) == (FACTS[0]["answer"][:2], "stop")
    assert usage["usage"] == plain["usage"]
    assert plain["usage"]["total_tokens"] == plain["usage"]["prompt_tokens"] + plain["usage"]["completion_tokens"]
    assert one["text"] == again["text"] != other["text"]
    assert narrow["text"] == likeliest["text"]


def test_what_cannot_be_answered_is_refused_as_openai_does(serving: Serving) -> None:
    unknown, long, empty, tools, two, hot = serving.ask(
        [
            hello("bst"),
            hello("best", messages=[{"role": "user", "content": "a b " * 2000}], stream=True),
            hello("best", messages=[]),
            hello("best", tools=[{"type": "function", "function": {"name": "f", "parameters": {}}}]),
            hello("best", n=2),
            hello("best", temperature=9),
        ]
    )
    assert (unknown["error"], unknown["status"], unknown["code"]) == ("NotFoundError", 404, "model_not_found")
    assert "lora_r=32" in unknown["message"]
    assert (long["error"], long["status"], long["code"]) == ("BadRequestError", 400, "context_length_exceeded")
    assert "256 at most" in long["message"]
    assert [one["status"] for one in (empty, tools, two, hot)] == [400] * 4
    assert [one["param"] for one in (empty, tools, two, hot)] == ["messages", "tools", "n", "temperature"]


def test_a_served_run_is_not_removed_and_the_refusal_names_the_command(
    serving: Serving, swept: Axosweep, runs: tuple[str, str]
) -> None:
    done = swept.run("rm", runs[0], "--yes")
    assert done.returncode == 2, done.stdout
    assert f"process {serving.process.pid} serves it" in done.stderr
    assert swept.store.folder(StepKind.TRAIN, runs[0]).done.exists()


def test_a_foreign_page_cannot_send_requests_under_a_name_that_leads_here(serving: Serving) -> None:
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(urllib.request.Request(f"{serving.url}/models", headers={"Host": "elsewhere.example"}))


def test_a_body_that_is_too_long_or_no_json_is_refused(serving: Serving) -> None:
    for body, status in ((b"\xff", "400"), (b"{", "400"), (b" " * (1 << 20) + b"{}", "413")):
        request = urllib.request.Request(f"{serving.url}/chat/completions", body, {"Content-Type": "application/json"})
        with pytest.raises(urllib.error.HTTPError, match=status):
            urllib.request.urlopen(request)
    with pytest.raises(urllib.error.HTTPError, match="400") as refused:  # with the header that curl -d sends
        urllib.request.urlopen(f"{serving.url}/chat/completions", b'{"model": "base", "messages": []}')
    assert "Content-Type: application/json" in json.loads(refused.value.read())["error"]["message"]


def test_a_token_is_required_and_written_nowhere_and_ctrl_c_leaves_nothing(
    swept: Axosweep, client: Client, runs: tuple[str, str], request: pytest.FixtureRequest
) -> None:
    before = places()
    serving = start(swept.with_variables({"AXOSWEEP_SERVE_TOKEN": TOKEN}), client, runs[0])
    request.addfinalizer(serving.process.kill)  # left by a test that has failed
    (wrong,) = serving.ask([hello("base")], key="something-else")
    assert (wrong["error"], wrong["status"]) == ("AuthenticationError", 401)
    assert serving.ask([hello("base", max_tokens=1)], key=TOKEN)[0]["finish"] == "length"
    assert urllib.request.urlopen(serving.url.replace("/v1", "/health")).status == 200
    assert TOKEN not in json.dumps(serving.told)
    (place,) = places() - before
    (server,) = working_in(Path(tempfile.gettempdir(), place))
    files = [*Path(tempfile.gettempdir(), place).rglob("*"), *swept.store.root.rglob("*")]
    assert not any(TOKEN.encode() in path.read_bytes() for path in files if path.is_file())

    serving.process.send_signal(signal.SIGINT)
    said = serving.process.communicate(timeout=30)[1]
    assert serving.process.returncode == 0
    assert "Traceback" not in said
    assert not is_alive(server)
    assert places() == before
    assert not list((swept.store.root / SERVED).glob(f"{serving.process.pid}-*"))


def test_a_server_starts_without_the_token_and_ends_with_the_command_that_was_killed_while_it_loads(
    swept: Axosweep,
) -> None:
    before = places()
    process = swept.with_variables({"AXOSWEEP_SERVE_TOKEN": TOKEN}).without_forks().start("serve")
    wait_until(lambda: bool(children(process.pid)) and bool(places() - before), "the server's process")
    (server,) = children(process.pid)
    assert not knows_token(server)
    kill(process.pid)
    process.communicate()
    wait_until(lambda: not is_alive(server), "the server's end", 20)
    wait_until(lambda: places() == before, "the end of its folder", 20)


def test_a_preloaded_trainer_starts_without_the_token_of_its_command(alone: Axosweep) -> None:
    process = alone.with_variables({"AXOSWEEP_SERVE_TOKEN": TOKEN}).without_forks().start("seed=1")
    wait_until(lambda: alone.preloaded() is not None, "the trainer")
    trainer = alone.preloaded()
    assert trainer is not None
    assert not knows_token(trainer)
    kill_all((trainer, process.pid))
    process.communicate()


def test_a_server_is_a_fork_of_a_trainer_that_waits_answers_as_infer_does_and_ends_with_its_command(
    swept: Axosweep, client: Client, runs: tuple[str, str], request: pytest.FixtureRequest
) -> None:
    lasting = Axosweep(swept.store, swept.folder, {"AXOSWEEP_WARM_IDLE_S": "300", "AXOSWEEP_SERVE_TOKEN": TOKEN})
    request.addfinalizer(lambda: lasting.run("warm", "stop"))
    words = ("--prompt", FACTS[0]["prompt"], "--greedy", "--max-tokens", "20")
    (inferred,) = lasting.json("infer", runs[0], *words)["answers"]
    trainer = swept.preloaded()
    assert trainer is not None
    before = places()

    def started() -> tuple[Serving, int]:
        serving = start(lasting, client, runs[0])
        request.addfinalizer(serving.process.kill)
        (server,) = children(trainer)
        assert not children(serving.process.pid)
        return serving, server

    serving, server = started()
    (answer,) = serving.ask([question(FACTS[0], runs[0], max_tokens=20)], key=TOKEN)
    assert answer["text"] == inferred["output"]
    assert TOKEN.encode() not in Path(f"/proc/{server}/cmdline").read_bytes()
    kill(serving.process.pid)
    serving.process.communicate()
    wait_until(lambda: not is_alive(server) and places() == before, "the end of a killed command's server", 20)

    serving, server = started()
    kill(trainer)
    assert serving.ask([hello("base", max_tokens=1)], key=TOKEN)[0]["finish"] == "length"
    serving.process.send_signal(signal.SIGINT)
    assert "Traceback" not in serving.process.communicate(timeout=30)[1]
    assert serving.process.returncode == 0
    wait_until(lambda: not is_alive(server), "its end", 20)
    assert places() == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("zzz",), "There is no run or sweep zzz"),
        (("--port", "99999"), "is not a port"),
        (("--port", "TAKEN"), "cannot be used (Address already in use)"),
        (("--host", "0.0.0.0"), "set a token of at least 16 characters"),
        (("--host", "192.0.2.77", "--token", "0123456789abcdef"), "is not an address of this machine"),
        (("--host", "no.such.host.invalid"), "cannot be resolved on this machine"),
        (("--token", "with space"), "without spaces"),
        (("--gpu", "l4"), "--gpu is for runs on Modal"),
        (("--merged",), "Make it: axosweep merge"),
    ],
)
def test_what_cannot_be_served_is_refused_in_a_sentence(swept: Axosweep, words: tuple[str, ...], said: str) -> None:
    before = places()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = swept.run("serve", *(port if word == "TAKEN" else word for word in words), timeout_s=20)
    assert done.returncode == 2, done.stdout
    assert said in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr
    assert places() == before
