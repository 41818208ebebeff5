"""`axosweep serve` on Modal: the real client, entrypoint and web proxy, with a stand-in for vLLM's command and no
GPU."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.axosweep import Axosweep
from tests.end_to_end.on_modal import local_modal, machine
from tests.modal_server import ModalServer
from tests.modal_server.fixture import needs_mounts, noop_settings

pytestmark = [
    pytest.mark.slow,
    needs_mounts,
    pytest.mark.skipif(
        "eth0" not in {name for _, name in socket.if_nameindex()}, reason="Modal's client asks for eth0's address"
    ),
]

TOKEN = "what-nobody-writes-down"
VLLM = Path(__file__).parents[1] / "modal_server" / "vllm"
SWEEP = ("-m", "lora=r8,r16", "gpu=a100_80gb", "gpu.count=2", "tracking=disabled", "executor=modal", "--yes")


@pytest.fixture(scope="module")
def server() -> Iterator[ModalServer]:
    settings = noop_settings()
    with local_modal(replace(settings, files={**settings.files, "/usr/local/bin/vllm": VLLM})) as server:
        yield server


@pytest.fixture(scope="module")
def swept(server: ModalServer, tmp_path_factory: pytest.TempPathFactory) -> Axosweep:
    """Two finished runs on Modal."""
    on_modal = machine(server, tmp_path_factory.mktemp("serve") / "machine")
    done = on_modal.run(*SWEEP)
    assert done.returncode == 0, done.stderr
    return on_modal


@pytest.fixture
def with_token(swept: Axosweep) -> Axosweep:
    return replace(swept, environment={**swept.environment, "AXOSWEEP_SERVE_TOKEN": TOKEN})


def get(url: str, token: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=60) as answer:
        return answer.read().decode()


def run_keys(swept: Axosweep) -> list[str]:
    return [row["key"] for row in swept.json("compare")["runs"]]


def test_the_runs_of_a_sweep_are_deployed_with_their_base_used_listed_and_ended(
    with_token: Axosweep, server: ModalServer
) -> None:
    served = with_token.json("serve")
    keys = run_keys(with_token)
    names = {name for model in served["models"] for name in model["names"]}
    assert {"base", "best", *keys} < names
    assert "lora_r=8" in names
    assert not server.tasks("serve"), "nothing is rented before a request"

    spec = server.function_specs()["serve"][-1]
    assert (spec.resources.gpu_config.gpu_type, spec.resources.gpu_config.count) == ("A100-80GB", 2)
    scaling = spec.autoscaler_settings
    assert (scaling.min_containers, scaling.max_containers, scaling.scaledown_window) == (0, 1, 300)
    assert {mount.mount_path: mount.read_only for mount in spec.volume_mounts} == {
        "/cache": True, "/data": True, "/compiled": False
    }  # fmt: skip
    layers = "\n".join(server.image_layers("serve"))
    assert re.search(r"vllm==[\d.]+", layers)
    assert "axolotl" not in layers, "the trainer's pins are not vLLM's"

    url = served["url"]
    with pytest.raises(urllib.error.HTTPError, match="401"):
        get(f"{url}/models", "something-else")
    with pytest.raises(urllib.error.HTTPError, match="401"):
        get(f"{url.removesuffix('/v1')}/invocations", "something-else", {"model": keys[0], "messages": []})
    assert {one["id"] for one in json.loads(get(f"{url}/models", TOKEN))["data"]} == names
    asked = {"model": keys[0], "messages": [{"role": "user", "content": "Hello"}]}
    said = json.loads(get(f"{url}/chat/completions", TOKEN, asked))["choices"][0]["message"]["content"]
    assert said.startswith(f"from /data/runs/{keys[0]}/model:  serve /cache/inputs/")
    assert f"--tokenizer /data/runs/{keys[0]}/model" in said or f"--tokenizer /data/runs/{keys[1]}/model" in said
    assert "--enable-lora --max-lora-rank 16 --max-loras 2 --lora-modules" in said
    assert "--tensor-parallel-size 2" in said
    assert TOKEN not in said, "others see a command line"
    streamed = get(f"{url}/chat/completions", TOKEN, {**asked, "stream": True})
    assert streamed.count("data: ") > 3
    assert streamed.endswith("data: [DONE]\n\n")

    deployments = len(server.calls("AppPublish"))
    assert with_token.json("serve")["url"] == url
    assert len(server.calls("AppPublish")) == deployments, "the same is there already"
    assert TOKEN not in "".join(
        path.read_text(errors="replace") for path in with_token.store.root.rglob("*") if path.is_file()
    )
    assert {call.name for call in server.calls() if TOKEN.encode() in call.request.SerializeToString()} <= {
        "SecretGetOrCreate", "SecretUpdate", "FunctionGetInputs"
    }  # fmt: skip

    (listed,) = with_token.json("serve", "list")["deployments"]
    assert f"{listed['url']}/v1" == url
    kept = with_token.run("rm", keys[0], "--yes")
    assert kept.returncode == 2
    assert f"it is served on Modal; axosweep serve stop {listed['app']} ends it" in kept.stderr
    stopped = with_token.run("serve", "stop")
    assert stopped.stdout == f"{listed['app']} has ended.\n"
    assert with_token.json("serve", "list")["deployments"] == []
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(f"{url}/models", TOKEN)
    assert not server.unknown_calls()


def test_a_token_is_drawn_and_shown_on_a_terminal_only_and_stored_at_modal(
    swept: Axosweep, server: ModalServer
) -> None:
    server.set_secret("axosweep-serve", {})
    piped = swept.run("serve", "--gpu", "l4")
    assert piped.returncode == 2
    assert "Set AXOSWEEP_SERVE_TOKEN" in piped.stderr
    shown = swept.shown("serve", "--gpu", "l4")
    (token,) = re.findall(r"export AXOSWEEP_SERVE_TOKEN=(\S{32})", shown)
    again = swept.run("serve", "--gpu", "l4", "--json")
    assert again.returncode == 0, again.stderr
    assert token not in again.stdout + again.stderr
    url = json.loads(again.stdout)["url"]
    assert "base" in get(f"{url}/models", token)
    (listed,) = swept.json("serve", "list")["deployments"]
    assert swept.json("serve", "stop")["ended"] == [listed["app"]]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("serve", "--gpu", "h1000"), "there is no such GPU. Did you mean h100"),
        (("serve", "--gpu", "h100:x"), "--gpu h100:2"),
        (("serve", "--gpu", "h100:9"), "at most 8"),
        (("serve", "--port", "80"), "--port is for runs on this machine"),
        (("serve", "--idle-minutes", "90"), "at most 20"),
        (("serve", "--token", "short"), "at least 16 characters"),
        (("serve", "--merged"), "Make it: axosweep merge"),
        (("serve", "stop"), "Nothing is being served on Modal"),
        (("serve", "nothing"), "There is no run or sweep nothing"),
    ],
)
def test_what_cannot_be_served_is_refused_in_a_sentence(
    swept: Axosweep, server: ModalServer, words: tuple[str, ...], said: str
) -> None:
    server.forget_calls()
    refused = swept.run(*words)
    assert refused.returncode == 2, refused.stdout
    assert said in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not server.calls("AppCreate"), "nothing is made"


def test_what_was_removed_from_a_volume_is_missed_before_a_gpu_is_rented(
    with_token: Axosweep, server: ModalServer
) -> None:
    key = run_keys(with_token)[0]
    subprocess.run(
        [sys.executable, "-m", "modal", "volume", "rm", "-r", "axosweep-runs", f"runs/{key}/model"],
        env={**os.environ, **server.environment()}, check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    refused = with_token.run("serve", key)
    assert refused.returncode == 2
    assert f"axosweep-runs has no runs/{key}/model" in refused.stderr
