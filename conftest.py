"""Fast tests first, so that a mistake shows before the slow ones start."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import hypothesis
import pytest

# A machine that also trains is slow at times, so the time of an example says nothing about the code.
hypothesis.settings.register_profile(
    "shared-machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("shared-machine")


def pytest_configure() -> None:
    """Set the signals as in a terminal: under nohup or in a script's background some are ignored, and every command
    would inherit that. And end each preloaded trainer with its command, unless a test says otherwise, since each needs
    a gigabyte.
    """
    for number, default in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, default)
    os.environ.setdefault("AXOSWEEP_WARM_IDLE_S", "0")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Collect no doctests under tests/: a helper there may be a script for another Python."""
    in_tests = Path(__file__).parent / "tests" in collection_path.parents
    helps = collection_path.suffix == ".py" and not collection_path.name.startswith(("test_", "conftest"))
    return True if in_tests and helps else None
