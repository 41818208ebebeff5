"""What a container of a served model runs: vLLM. An environment variable names its models. Standard library.

vLLM is started as a separate command, since its pins differ from the trainer's, and it checks a token itself.
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

from modal_app.process.native_code import without_fetched_code
from modal_app.serving.spec import TOKEN_VARIABLE, brings_token
from modal_app.store.sources import HERE

PORT = 8000
SPEC = "AXOSWEEP_SERVED"
"""The variable with a Vllm as JSON."""
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The values that vLLM accepts for the largest rank of its adapters."""
STARTUP_S = 1200
"""Enough to load a large model from a Volume into several GPUs, and to compile it the first time."""
POLL_S = 0.2
KEY_VARIABLE = "VLLM_API_KEY"
"""The variable from which vLLM reads the token."""


@dataclass(frozen=True, slots=True)
class Vllm:
    """One vLLM server: a base model with adapters, or one model with its own weights. Paths are in the container."""

    model: str
    names: tuple[str, ...]
    """The model's own names for requests."""
    tokenizer: str
    """The folder of the tokenizer with the chat template of the training."""
    adapters: Mapping[str, str]
    """The folder of an adapter, by each of its names."""
    rank: int = 0
    """The largest rank of the adapters."""
    gpus: int = 1
    half: bool = False
    """For GPUs without bf16."""
    trusts_remote_code: bool = False

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Vllm:
        raw = json.loads(text)
        return cls(**{**raw, "names": tuple(raw["names"])})


def command(served: Vllm) -> list[str]:
    """The command line of vLLM, without the token, which vLLM reads from its environment."""
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
    """In vLLM's process: refuses every request without the token. vLLM itself checks it only below /v1 and similar
    paths, and answers the same requests at /invocations without it."""

    def __init__(self, app: Any) -> None:
        self._app, self._token = app, os.environ[KEY_VARIABLE].encode()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        # Browsers send OPTIONS without the token, to learn what they may request.
        needs_token = scope["type"] in ("http", "websocket") and scope.get("method") != "OPTIONS"
        if not needs_token or brings_token(scope["headers"], self._token):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await send(
                {"type": "http.response.start", "status": 401, "headers": [(b"content-type", b"application/json")]}
            )
            await send({"type": "http.response.body", "body": b'{"error": "Unauthorized"}'})


def serve() -> None:
    """Start vLLM and return when it listens. Raises RuntimeError as soon as it has ended, since the container would
    otherwise wait for it, on a GPU, until its time is up."""
    token = os.environ.get(TOKEN_VARIABLE)
    if not token:
        raise RuntimeError(f"the secret does not contain {TOKEN_VARIABLE}: nothing is served without a token")
    words = command(Vllm.from_json(os.environ[SPEC]))
    sources = os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(
        words, env={**os.environ, **without_fetched_code(os.environ), KEY_VARIABLE: token, "PYTHONPATH": sources}
    )
    deadline = time.monotonic() + STARTUP_S
    while time.monotonic() < deadline:
        if (code := process.poll()) is not None:
            raise RuntimeError(f"vLLM ended with code {code} before it listened; its log is above")
        if _listens():
            return
        time.sleep(POLL_S)
    process.kill()
    raise RuntimeError(f"vLLM did not listen within {STARTUP_S} s; its log is above")


def _listens() -> bool:
    try:
        socket.create_connection(("127.0.0.1", PORT), timeout=1.0).close()
    except OSError:
        return False
    return True
