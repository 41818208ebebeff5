"""What a container of a served model runs: vLLM, told by an environment variable which models it has. Standard library.

vLLM is started as its own command: its pins are not the trainer's, and it has a token of its own to ask for.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from modal_app.serving.spec import TOKEN_VARIABLE, brings_token
from modal_app.store.sources import HERE

PORT = 8000
SPEC = "AXOSWEEP_SERVED"
"""The variable that holds a Vllm."""
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes for the largest rank of its adapters."""
STARTUP_S = 1200
"""For a large model on its way from a Volume into several GPUs, and for compiling it the first time."""
POLL_S = 0.2
KEY_VARIABLE = "VLLM_API_KEY"
"""By which vLLM is told the token."""


@dataclass(frozen=True, slots=True)
class Vllm:
    """One vLLM server: a base model and adapters of it, or one model of its own weights. Paths are a container's."""

    model: str
    names: tuple[str, ...]
    """What the model itself may be asked by."""
    tokenizer: str
    """The folder of one that has the chat template of the training."""
    adapters: Mapping[str, str]
    """By each of its names, a folder."""
    rank: int = 0
    """The largest of the adapters'."""
    gpus: int = 1
    half: bool = False
    """On cards that know no bf16."""
    trusts_remote_code: bool = False

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Vllm:
        raw = json.loads(text)
        return cls(**{**raw, "names": tuple(raw["names"])})


def command(served: Vllm) -> list[str]:
    """Its command line. The token is not in it: vLLM reads it from its environment."""
    words = ["vllm", "serve", served.model, "--served-model-name", *served.names]
    words += ["--tokenizer", served.tokenizer, "--host", "0.0.0.0", "--port", str(PORT)]
    words += ["--max-model-len", "auto", "--disable-uvicorn-access-log", "--middleware", f"{__name__}.Guard"]
    if served.adapters:
        rank = next(rank for rank in RANKS if rank >= served.rank)
        folders = len(set(served.adapters.values()))
        words += ["--enable-lora", "--max-lora-rank", str(rank), "--max-loras", str(folders), "--lora-modules"]
        words += [json.dumps({"name": name, "path": path}) for name, path in served.adapters.items()]
    if served.gpus > 1:
        words += ["--tensor-parallel-size", str(served.gpus)]
    if served.half:
        words += ["--dtype", "half"]
    if served.trusts_remote_code:
        words += ["--trust-remote-code"]
    return words


class Guard:
    """In vLLM's process: nothing is answered without the token. vLLM itself asks for it below /v1 and the like, and
    lets whoever finds the address ask at /invocations, which is the same."""

    def __init__(self, app: Any) -> None:
        self._app, self._token = app, os.environ[KEY_VARIABLE].encode()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        asks = scope["type"] in ("http", "websocket") and scope.get("method") != "OPTIONS"  # a browser, what it may ask
        if not asks or brings_token(scope["headers"], self._token):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await send(
                {"type": "http.response.start", "status": 401, "headers": [(b"content-type", b"application/json")]}
            )
            await send({"type": "http.response.body", "body": b'{"error": "Unauthorized"}'})


def serve() -> None:
    """Start vLLM and come back when it listens. Raises RuntimeError as soon as it has ended: the container would wait
    for it, on a GPU, until its time is up."""
    token = os.environ.get(TOKEN_VARIABLE)
    if not token:
        raise RuntimeError(f"the secret has no {TOKEN_VARIABLE}: nothing is served without a token")
    words = command(Vllm.from_json(os.environ[SPEC]))
    sources = os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(words, env={**os.environ, KEY_VARIABLE: token, "PYTHONPATH": sources})
    deadline = time.monotonic() + STARTUP_S
    while time.monotonic() < deadline:
        if (code := process.poll()) is not None:
            raise RuntimeError(f"vLLM ended with code {code} before it listened; its log is above")
        if _listens():
            return
        time.sleep(POLL_S)
    process.kill()
    raise RuntimeError(f"vLLM does not listen after {STARTUP_S} s")


def _listens() -> bool:
    try:
        socket.create_connection(("127.0.0.1", PORT), timeout=1.0).close()
    except OSError:
        return False
    return True
