"""What is deployed to Modal: one image from the trainer's lock, two Volumes, the functions. Data, and one builder.

An app's name ends in a hash of all that decides what it does, so a redeployed program never mixes into a running
sweep: another program is another app.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path

import modal

import modal_app
from modal_app import functions
from modal_app.remote import CACHE_MOUNT, RUNS_MOUNT

HERE = Path(next(iter(modal_app.__path__)))
LOCK = HERE / "trainer" / "requirements.lock"
PYTHON = "3.12"
HOUR_S = 3600


@dataclass(frozen=True, slots=True)
class Deployment:
    """The `executor` node of conf/executor/modal.yaml."""

    app: str
    cache_volume: str
    runs_volume: str
    claims: str
    secret: str
    image: str
    """The base image, by tag or digest."""
    apt: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    """More Python packages, each pinned."""
    timeout_hours: int = 24

    @property
    def app_name(self) -> str:
        """The app of exactly this program: its sources, its lock, its image and its names."""
        digest = hashlib.sha256(repr(sorted(asdict(self).items())).encode())
        for path in [LOCK, *sorted(HERE.glob("*.py"))]:
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
        return f"{self.app}-{digest.hexdigest()[:10]}"


def trainer_image(deployment: Deployment) -> modal.Image:
    """The locked trainer on a CUDA base: what was tested locally is what is rented."""
    image = modal.Image.from_registry(deployment.image, add_python=PYTHON).entrypoint([])
    image = image.apt_install("git", "build-essential", *deployment.apt)
    image = image.pip_install("uv").add_local_file(LOCK, "/trainer/requirements.lock", copy=True)
    image = image.run_commands(
        "uv pip sync --system --break-system-packages --require-hashes --compile-bytecode /trainer/requirements.lock"
    )
    if deployment.packages:
        image = image.run_commands("uv pip install --system --no-deps " + " ".join(sorted(deployment.packages)))
    image = image.env(
        {
            "AXOLOTL_DO_NOT_TRACK": "1",
            "DO_NOT_TRACK": "1",
            "HF_XET_HIGH_PERFORMANCE": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
    )
    return image.add_local_python_source("modal_app")


def build_app(deployment: Deployment) -> modal.App:
    """The app, not yet deployed."""
    app = modal.App(deployment.app_name)
    image = trainer_image(deployment)
    cache = modal.Volume.from_name(deployment.cache_volume, create_if_missing=True, version=2)
    runs = modal.Volume.from_name(deployment.runs_volume, create_if_missing=True, version=2)
    secrets = [modal.Secret.from_name(deployment.secret)]
    timeout = deployment.timeout_hours * HOUR_S
    for function in (functions.fetch, functions.preprocess):
        app.function(
            image=image,
            secrets=secrets,
            volumes={str(CACHE_MOUNT): cache, str(RUNS_MOUNT): runs},
            timeout=timeout,
            retries=2,
            cpu=4.0,
            memory=16384,
        )(function)
    app.function(
        image=image,
        secrets=secrets,
        volumes={str(CACHE_MOUNT): cache.with_mount_options(read_only=True), str(RUNS_MOUNT): runs},
        timeout=timeout,
        retries=2,
        single_use_containers=True,
    )(functions.train)
    return app
