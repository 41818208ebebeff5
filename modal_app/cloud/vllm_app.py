"""What is deployed to Modal to serve models: a separate app with vLLM in its image, which rents nothing while no client
sends requests.

vLLM and the trainer pin different versions of the same packages, so they share the Volumes and not the image.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath

import modal

from modal_app.cloud.deployment import UV
from modal_app.cloud.job import CACHE_MOUNT, RUNS_MOUNT
from modal_app.cloud.settings import LOCK, PYTHON
from modal_app.serving import vllm
from modal_app.serving.spec import TOKEN_VARIABLE
from modal_app.serving.vllm import PORT, SPEC, STARTUP_S, Vllm
from modal_app.store.sources import source_digest

FUNCTION = "serve"
SOURCES = ("cloud/vllm_app.py", "serving/vllm.py", "serving/spec.py")
"""The files of its image that decide what it does."""
IMAGE = "nvidia/cuda:13.0.2-devel-ubuntu24.04"
"""The CUDA that vLLM's torch is built for, with a compiler: some kernels are built on first use."""
VLLM = "0.33.0"
COMPILED = "/compiled"
"""Where vLLM stores what it has compiled, for the next container."""
MOST_QUESTIONS = 64
"""Answered by a container at a time: vLLM batches them."""
QUESTION_S = 3600
"""The longest time for one answer."""
ENVIRONMENT = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_CACHE": f"{CACHE_MOUNT}/hub",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_CACHE_ROOT": COMPILED,
    "VLLM_NO_USAGE_STATS": "1",
}


@dataclass(frozen=True, slots=True)
class Serve:
    """One deployment that serves."""

    served: Vllm
    gpu: str
    """As Modal names it: `H100:2`."""
    idle_s: int
    """How long a container waits for the next request."""
    cache_volume: str
    runs_volume: str
    secret: str
    """The one that has the token."""

    @property
    def app_name(self) -> str:
        """The same models on the same GPU have the same app."""
        digest = hashlib.sha256(repr(sorted(asdict(self).items())).encode())
        digest.update(f"{IMAGE} {VLLM} {transformers()}".encode())
        digest.update(source_digest(*SOURCES).encode())
        return f"axosweep-serve-{digest.hexdigest()[:8]}"


def vllm_image() -> modal.Image:
    """vLLM at its version, with the trainer's transformers; its other packages are those of the day of the build."""
    image = modal.Image.from_registry(IMAGE, add_python=PYTHON).entrypoint([]).apt_install("build-essential")
    image = image.uv_pip_install(f"vllm=={VLLM}", f"transformers=={transformers()}", uv_version=UV)
    return image.env(ENVIRONMENT).add_local_python_source("modal_app")


def transformers() -> str:
    """The version in the trainer's lock: tokenizers and chat templates depend on it."""
    (version,) = re.findall(r"^transformers==([\w.]+)", LOCK.read_text(encoding="utf-8"), re.MULTILINE)
    return str(version)


def build_app(serve: Serve) -> modal.App:
    """The app, not yet deployed. It has one container at most."""
    app = modal.App(serve.app_name, include_source=False)  # the image has the sources
    volumes: dict[str | PurePosixPath, modal.Volume | modal.CloudBucketMount] = {
        str(CACHE_MOUNT): modal.Volume.from_name(serve.cache_volume).with_mount_options(read_only=True),
        str(RUNS_MOUNT): modal.Volume.from_name(serve.runs_volume).with_mount_options(read_only=True),
    }
    volumes[COMPILED] = modal.Volume.from_name(f"{serve.cache_volume}-vllm", create_if_missing=True, version=2)
    web = modal.web_server(PORT, startup_timeout=STARTUP_S)(vllm.serve)
    app.function(
        name=FUNCTION,
        image=vllm_image(),
        gpu=serve.gpu,
        env={SPEC: serve.served.to_json()},
        secrets=[modal.Secret.from_name(serve.secret, required_keys=[TOKEN_VARIABLE])],
        volumes=volumes,
        min_containers=0,
        max_containers=1,
        scaledown_window=serve.idle_s,
        timeout=QUESTION_S,
        startup_timeout=STARTUP_S,
    )(modal.concurrent(max_inputs=MOST_QUESTIONS)(web))
    return app
