"""Fast tests first, so that a mistake shows before the slow ones start."""

from __future__ import annotations

import hypothesis
import pytest

# A machine that trains beside the tests is slow at times; how long an example takes says nothing about the code.
hypothesis.settings.register_profile(
    "shared-machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("shared-machine")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)
