"""How many threads a rank's libraries use. They read it from their environment when they are imported.

On a CPU it is one thread: the number of threads decides in which order numbers are added up, so it changes the losses,
and runs with the same key must have equal losses. Modal sets these variables from a container's CPU request, and a
shell may have set them. On a GPU the losses do not depend on it, and offloaded optimizers need the cores.
"""

from __future__ import annotations

import os
import sys

from modal_app.store.step import Device

VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def with_threads(number: int) -> dict[str, str]:
    return dict.fromkeys(VARIABLES, str(number))


def for_ranks(device: Device, ranks: int, cores: float) -> dict[str, str]:
    """The environment of each of `ranks` that share these cores."""
    return with_threads(1 if device is Device.CPU else max(1, int(cores // max(1, ranks))))


def unless_set(variables: dict[str, str]) -> dict[str, str]:
    """The same with what this process's environment says already."""
    return {name: os.environ.get(name) or value for name, value in variables.items()}


def usable_cores() -> int:
    """The cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
