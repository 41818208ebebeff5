"""The shape of a real sweep with a step that does nothing: fetch, then preprocess, then one training per run.

No call waits in the cloud: each step claims its key, does its work, commits it, and starts the steps that need it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import modal

NAME = "sweep"
CACHE, RUNS = Path("/cache"), Path("/runs")

app = modal.App(NAME)
image = (
    modal.Image.from_registry("nvidia/cuda:12.8.1-devel-ubuntu24.04", add_python="3.12")
    .apt_install("git", "build-essential")
    .uv_pip_install("axolotl==0.21.0")
    .run_commands("python -m compileall -q /usr/local/lib")
    .env({"HF_HUB_OFFLINE": "1", "AXOLOTL_DO_NOT_TRACK": "1"})
    .add_local_python_source("noop_step")
)
cache = modal.Volume.from_name("cache", create_if_missing=True, version=2)
runs = modal.Volume.from_name("runs", create_if_missing=True, version=2)
claims = modal.Dict.from_name("claims", create_if_missing=True)
secrets = [modal.Secret.from_name("secrets-hf-wandb", required_keys=["HF_TOKEN"])]


def claim(key: str) -> bool:
    """True for the only call that may do this."""
    return claims.put(key, os.environ["MODAL_TASK_ID"], skip_if_exists=True)


def start(name: str, plan: dict[str, Any], request: dict[str, Any]) -> str:
    """Spawn a step of the same version, with the resources that the plan gives it."""
    function = modal.Function.from_name(NAME, name, version=plan["version"])
    options = request.pop("options", {})
    return function.with_options(**options).spawn(json.dumps({"plan": plan, **request})).object_id


@app.function(image=image, secrets=secrets, volumes={"/cache": cache}, timeout=3600)
def fetch(text: str) -> dict[str, object]:
    plan = json.loads(text)["plan"]
    if not claim("fetch"):
        return {"status": "claimed"}
    (CACHE / "hub").mkdir(exist_ok=True)
    (CACHE / "hub" / "model.bin").write_text("weights")
    cache.commit()
    return {"status": "succeeded", "started": [start("preprocess", plan, {})]}


@app.function(image=image, secrets=secrets, volumes={"/cache": cache, "/runs": runs}, timeout=3600)
def preprocess(text: str) -> dict[str, object]:
    plan = json.loads(text)["plan"]
    if not claim("preprocess"):
        return {"status": "claimed"}
    assert (CACHE / "hub" / "model.bin").read_text() == "weights"
    (CACHE / "prepared").mkdir(exist_ok=True)
    (CACHE / "prepared" / "data.arrow").write_text((RUNS / "inputs" / "data.jsonl").read_text().upper())
    cache.commit()
    return {"status": "succeeded", "started": [start("train", plan, dict(run)) for run in plan["runs"]]}


@app.function(
    image=image,
    secrets=secrets,
    volumes={"/cache": cache.with_mount_options(read_only=True), "/runs": runs},
    gpu="H100",
    timeout=24 * 3600,
    retries=modal.Retries(max_retries=2, initial_delay=0.0),
    single_use_containers=True,
)
def train(text: str) -> dict[str, object]:
    request = json.loads(text)
    if not claim(f"train-{request['key']}") and claims[f"train-{request['key']}"] == os.environ["MODAL_TASK_ID"]:
        return {"status": "claimed"}
    folder = RUNS / "runs" / str(request["key"])
    folder.mkdir(parents=True, exist_ok=True)
    attempts = folder / "attempts"
    attempts.write_text(f"{int(attempts.read_text()) + 1 if attempts.exists() else 1}")
    runs.commit()
    data = (CACHE / "prepared" / "data.arrow").read_text()
    command = [sys.executable, "-m", "noop_step", str(folder), str(request["seconds"])]
    subprocess.run(command, check=True, cwd="/root")
    runs.commit()
    return {"status": "succeeded", "data": data, **json.loads((folder / "result.json").read_text())}


if __name__ == "__main__":
    app.deploy()
    with runs.batch_upload(force=True) as batch:
        batch.put_file(sys.argv[2], "/inputs/data.jsonl")
    plan = json.loads(sys.argv[1])
    print(start("fetch", plan, {"options": {"timeout": 600}}))
