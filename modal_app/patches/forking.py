"""Patches of a fork of the preloaded trainer."""

from __future__ import annotations

import weakref

from modal_app.patches.patch import require


def leave_finalizers_to_the_parent() -> None:
    require(weakref.finalize, "weakref.finalize", "_registry")
    for one in list(weakref.finalize._registry):  # type: ignore[attr-defined]
        one.atexit = False
