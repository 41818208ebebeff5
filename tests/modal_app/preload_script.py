"""Preload the trainer, then run a step as a fork of it does. Print, as JSON, which variables the imports read, which
flags say offline, whether CUDA was initialized, and what the step imports for itself.

`python -P preload_script.py ROOT STORE < step.json`, with the trainer's Python.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any


def read_by_imports() -> list[str]:
    from modal_app.warm import preload

    seen: set[str] = set()
    plain = type(os.environ)

    class Watched(plain):  # type: ignore[valid-type, misc]  # which class it is, is only known here
        def __getitem__(self, name: str) -> str:
            seen.add(name)
            return str(super().__getitem__(name))

        def __contains__(self, name: object) -> bool:
            seen.add(str(name))
            return bool(super().__contains__(name))

    os.environ.__class__ = Watched
    preload.preload()
    os.environ.__class__ = plain
    return sorted(seen)


def offline_flags() -> list[str]:
    return sorted(
        f"{name}.{key}"
        for name, module in list(sys.modules.items())
        for key, value in list(vars(module).items())
        if isinstance(value, bool) and "OFFLINE" in key
    )


def run(store: Path) -> dict[str, Any]:
    """The step on stdin."""
    from modal_app import worker
    from modal_app.process.attempt import base_environment
    from modal_app.store.layout import Store
    from modal_app.store.step import Device, Step

    os.environ |= base_environment(Device.CPU)
    step, before = Step.from_json(sys.stdin.read()), set(sys.modules)
    code = worker.exit_code(step, Store(store), warm=True)
    return {"code": code, "late": sorted(set(sys.modules) - before)}


def main(root: str, store: str) -> dict[str, Any]:
    sys.path.insert(0, root)
    found: dict[str, Any] = {"read": read_by_imports(), "flags": offline_flags()}
    import torch

    return found | {"woken": torch.cuda.is_initialized()} | run(Path(store))


if __name__ == "__main__":
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what imports print is not part of it
    json.dump(main(*sys.argv[1:]), answer)
    answer.flush()
