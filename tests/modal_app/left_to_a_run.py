"""Run a step as a fork of a preloaded trainer does, and print what it imports for itself: JSON.

`python left_to_a_run.py STORE < step.json`, with the trainer's Python and this checkout in PYTHONPATH.
"""

import json
import os
import sys
from pathlib import Path


def main() -> None:
    from modal_app import worker
    from modal_app.process.attempt import base_environment
    from modal_app.store.layout import Store
    from modal_app.store.step import Device, Step
    from modal_app.warm.preload import preload

    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # the output of imports is not part of it
    step, store = Step.from_json(sys.stdin.read()), Store(Path(sys.argv[1]))
    os.environ |= base_environment(Device.CPU)
    preload()
    before = set(sys.modules)
    code = worker.exit_code(step, store, warm=True)
    answer.write(json.dumps({"code": code, "late": sorted(set(sys.modules) - before)}))
    answer.flush()


if __name__ == "__main__":
    main()
