"""Patches of a fork of the preloaded trainer."""

from __future__ import annotations

import sys
import tempfile
import weakref

from modal_app.patches.patch import require

_OWN: list[tempfile.TemporaryDirectory[str]] = []
"""Held until the process ends, which removes it."""


def leave_finalizers_to_the_parent() -> None:
    require(weakref.finalize, "weakref.finalize", "_registry")
    for one in list(weakref.finalize._registry):  # type: ignore[attr-defined]
        one.atexit = False


def have_own_media_folder() -> None:
    module = sys.modules.get("wandb.sdk.data_types._private")
    if module is None:
        return
    require(module, "wandb.sdk.data_types._private", "MEDIA_TMP")
    _OWN.append(tempfile.TemporaryDirectory("wandb-media"))
    module.MEDIA_TMP.name = _OWN[-1].name
