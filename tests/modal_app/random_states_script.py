"""Print which random states a fork of the trainer has, and which of them two forks share.

`python random_states_script.py ROOT` prints to stderr, since imports print. Runs in the trainer's environment.
"""

from __future__ import annotations

import json
import os
import random
import sys
from typing import Any


def state(value: object) -> Any:
    import numpy
    import torch

    match value:
        case random.Random() if not isinstance(value, random.SystemRandom):
            return value.getstate()
        case numpy.random.RandomState():
            return value.get_state()[1].tolist()
        case numpy.random.Generator():
            return str(value.bit_generator.state)
        case torch.Generator():
            return value.get_state().tolist()
    return None


def states() -> dict[str, str]:
    found = {
        f"{name}.{key}": state(value)
        for name, module in list(sys.modules.items())
        for key, value in list(vars(module).items())
    }
    return {name: repr(one) for name, one in found.items() if one is not None}


def states_of_a_fork() -> dict[str, str]:
    from modal_app.warm import preload

    ours, theirs = os.pipe()
    if not os.fork():
        preload.become_a_fresh_process()
        with open(theirs, "w") as file:
            json.dump(states(), file)
        os._exit(0)
    os.close(theirs)
    with open(ours) as file:
        found: dict[str, str] = json.load(file)
    os.wait()
    return found


def main(root: str) -> None:
    sys.path.insert(0, root)
    from modal_app.warm import preload

    preload.preload()
    one, other = states_of_a_fork(), states_of_a_fork()
    print(json.dumps([sorted(one), sorted(name for name in one if one[name] == other[name])]), file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1])
