from __future__ import annotations

import asyncio
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from modal_app.serving.vllm import KEY_VARIABLE, Guard, Vllm, command

ROOT = Path(__file__).resolve().parents[2]
SERVED = Vllm(
    model="/cache/hub/models--owner--base/snapshots/c0ffee",
    names=("base",),
    tokenizer="/data/runs/a/model",
    adapters={"a": "/data/runs/a/model", "lora_r=24": "/data/runs/a/model", "b": "/data/runs/b/model"},
    rank=24,
)


def serve(tmp_path: Path, vllm: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """What a container does, with this in place of vLLM's command."""
    program = tmp_path / "vllm"
    program.write_text(f"#!/bin/sh\n{vllm}\n")
    program.chmod(program.stat().st_mode | stat.S_IEXEC)
    return subprocess.run(
        [sys.executable, "-c", "from modal_app.serving.vllm import serve; serve()"],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), **variables},
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip


def test_the_command_line_names_the_base_and_every_adapter() -> None:
    """vLLM 0.33's own parser accepts it as it is here."""
    words = command(SERVED)
    assert words[:5] == ["vllm", "serve", SERVED.model, "--served-model-name", "base"]
    assert " ".join(words[5:17]) == (
        "--tokenizer /data/runs/a/model --host 0.0.0.0 --port 8000 --max-model-len auto --disable-uvicorn-access-log "
        "--middleware modal_app.serving.vllm.Guard --enable-lora"
    )
    assert words[17:22] == ["--max-lora-rank", "32", "--max-loras", "2", "--lora-modules"], "vLLM knows some ranks only"
    assert [json.loads(word) for word in words[22:]] == [
        {"name": name, "path": path} for name, path in SERVED.adapters.items()
    ]


def test_a_model_of_its_own_weights_has_no_adapters_and_cards_have_their_flags() -> None:
    alone = Vllm("/data/runs/a/model", ("a", "best"), "/data/runs/a/model", {}, gpus=4, half=True)
    words = command(alone)
    assert "--enable-lora" not in words
    assert words[3:6] == ["--served-model-name", "a", "best"]
    assert words[-4:] == ["--tensor-parallel-size", "4", "--dtype", "half"]


def test_a_vllm_that_ends_is_reported_at_once_and_not_waited_for_on_a_gpu(tmp_path: Path) -> None:
    done = serve(tmp_path, "exit 3", AXOSWEEP_SERVE_TOKEN="t", AXOSWEEP_SERVED=SERVED.to_json())
    assert "vLLM ended with code 3 before it listened" in done.stderr


def test_nothing_is_served_without_a_token(tmp_path: Path) -> None:
    done = serve(tmp_path, f"touch {tmp_path}/started", AXOSWEEP_SERVED=SERVED.to_json())
    assert "nothing is served without a token" in done.stderr
    assert not (tmp_path / "started").exists()


def test_the_token_reaches_vllm_by_its_environment(tmp_path: Path) -> None:
    served = SERVED.to_json()
    serve(tmp_path, f'echo "$VLLM_API_KEY" > {tmp_path}/key; exit 1', AXOSWEEP_SERVE_TOKEN="t", AXOSWEEP_SERVED=served)
    assert (tmp_path / "key").read_text() == "t\n"


def guarded(scope: dict[str, Any]) -> list[Any]:
    """The answer to a request: `let through`, or what the guard itself has sent."""
    told: list[Any] = []

    async def app(*_: object) -> None:
        told.append("let through")

    async def send(message: Any) -> None:
        told.append(message.get("status") or message.get("code") or message["type"])

    asyncio.run(Guard(app)(scope, None, send))
    return told


@pytest.mark.parametrize("path", ["/v1/models", "/invocations", "/tokenize", "/health", "/"])
def test_no_path_of_vllm_is_answered_without_the_token(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    """vLLM 0.33 itself checks some."""
    monkeypatch.setenv(KEY_VARIABLE, "t" * 16)
    asked = {"type": "http", "method": "POST", "path": path}
    for given in (b"", b"Bearer ", b"Bearer " + b"t" * 15, b"Basic " + b"t" * 16):
        refused = guarded({**asked, "headers": [(b"authorization", given)]})
        assert refused == [401, "http.response.body"]
    assert guarded({**asked, "headers": []}) == [401, "http.response.body"]
    assert guarded({**asked, "headers": [(b"authorization", b"bearer " + b"t" * 16)]}) == ["let through"]


def test_the_guard_closes_sockets_to_strangers_and_lets_the_server_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "t" * 16)
    assert guarded({"type": "websocket", "path": "/v1/realtime", "headers": []}) == [1008]
    assert guarded({"type": "lifespan"}) == ["let through"]


def test_vllm_finds_the_guard_by_its_name(tmp_path: Path) -> None:
    served, where = SERVED.to_json(), tmp_path / "where"
    program = f'cd / && {sys.executable} -c "from modal_app.serving.vllm import Guard" && touch {where}; exit 1'
    serve(tmp_path, program, AXOSWEEP_SERVE_TOKEN="t", AXOSWEEP_SERVED=served, PYTHONPATH="")
    assert where.exists()
