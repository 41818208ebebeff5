"""Which names change with each source file of a copied program: `python changed_sources.py ROOT`, with ROOT on the
path.

Prints, as JSON, for each Python file below ROOT/modal_app the names that change when a line is appended to it, and for
`renamed`, the names that change when a file moves to another folder with its content and its name.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import modal_app
from modal_app.cloud.settings import Deployment
from modal_app.cloud.vllm_app import Serve
from modal_app.serving.vllm import Vllm
from runner.environment.verdicts import SchemaQuestion, Verdicts
from runner.executors.warm_server import trainer_fingerprint

QUESTION = SchemaQuestion({"base_model": "a"}, {})
NODE = {
    "app": "axosweep",
    "cache_volume": "cache",
    "runs_volume": "runs",
    "claims": "claims",
    "secret": "secret",
    "image": "ubuntu:24.04",
}
SERVED = Serve(Vllm("model", ("base",), "model", {}), "H100", 60, "cache", "runs", "secret")


def names(memory: Path) -> dict[str, Any]:
    deployment = Deployment.from_node(NODE)
    return {
        "app": deployment.app_name,
        "preloaded trainer": trainer_fingerprint(Path(sys.executable)),
        "verdict": Verdicts(memory, "lock").get(QUESTION) is None,
        "served app": SERVED.app_name,
    }


def main(root: Path) -> None:
    assert Path(modal_app.__path__[0]) == root / "modal_app", "another program would be looked at"
    memory = root / "verdicts.json"
    remembered = Verdicts(memory, "lock")
    remembered.put(QUESTION, {"problems": [], "warnings": []})
    remembered.save()
    before = names(memory)
    assert before["verdict"] is False
    moved = {}
    for path in sorted((root / "modal_app").rglob("*.py")):
        content = path.read_bytes()
        path.write_bytes(content + b"# changed\n")
        moved[str(path.relative_to(root))] = _other(before, names(memory))
        path.write_bytes(content)
    assert names(memory) == before
    worker = root / "modal_app" / "worker.py"
    worker.rename(root / "modal_app" / "trainer" / "worker.py")
    moved["renamed"] = _other(before, names(memory))
    json.dump(moved, sys.stdout)


def _other(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    return [name for name in before if before[name] != now[name]]


if __name__ == "__main__":
    os.umask(0o077)
    main(Path(sys.argv[1]).resolve())
