"""Run a step as a fork of a preloaded trainer does, and print what it does for itself: JSON.

`python left_to_a_run.py STORE < step.json`, with the trainer's Python and this checkout in PYTHONPATH.
"""

import importlib.util
import json
import os
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

CALLS: Counter[str] = Counter()


def main() -> None:
    from modal_app import worker
    from modal_app.patches import preload
    from modal_app.process.attempt import base_environment
    from modal_app.store.layout import Store
    from modal_app.store.step import Device, Step

    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what imports print is no part of it
    step, store = Step.from_json(sys.stdin.read()), Store(Path(sys.argv[1]))
    os.environ |= base_environment(Device.CPU)
    preload.load(preload.EVERYTHING, preload.LATE)
    preload.memoise_schema()
    preload.build_tables()
    import yaml

    count(yaml.SafeLoader, "__init__", "slow YAML")
    count(importlib.util, "find_spec", "lomo", lambda name, *_: name == "lomo_optim")
    before = set(sys.modules)
    code = worker.exit_code(step, store, warm=True)
    answer.write(json.dumps({"code": code, "late": sorted(set(sys.modules) - before), "calls": CALLS}))
    answer.flush()


def count(owner: Any, name: str, as_what: str, counts: Callable[..., bool] = lambda *_: True) -> None:
    call = getattr(owner, name)

    def counted(*arguments: Any, **named: Any) -> Any:
        CALLS[as_what] += counts(*arguments)
        return call(*arguments, **named)

    setattr(owner, name, counted)


if __name__ == "__main__":
    main()
