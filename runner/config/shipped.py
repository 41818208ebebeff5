"""Where the shipped folders conf/, sweeps/ and tiny/ are: in a checkout, and in an installed wheel."""

from __future__ import annotations

from pathlib import Path

import runner

_PACKAGE = Path(next(iter(runner.__path__))).resolve()


def shipped_root() -> Path:
    """The folder that contains conf/, sweeps/ and tiny/."""
    return checkout_root() or _PACKAGE / "_shipped"


def checkout_root() -> Path | None:
    """The repository's root; None where axosweep was installed from a wheel."""
    return None if (_PACKAGE / "_shipped").is_dir() else _PACKAGE.parent
