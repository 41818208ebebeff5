"""The trainer environment, where Axolotl lives: found, held to its lock, built.

Hydra and Axolotl cannot be installed together, so Axolotl has an environment of its own, made from
modal_app/trainer/requirements.lock. The same lock makes the Modal image.
`python -m runner.environment.trainer_environment` builds it, as `axosweep setup` does.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import modal_app
from modal_app.store.flock import lock, try_lock
from modal_app.store.step import write_atomically
from runner.config.shipped import checkout_root
from runner.console import terminal
from runner.errors import SweepError

LOCK_FILE = Path(modal_app.__file__).resolve().parent / "trainer" / "requirements.lock"
STAMP = "built-from.sha256"
"""In the environment's folder, written last: the hash of the lock that it was built from."""
UNFINISHED = "unfinished"
"""The stamp while a build is under way, or after one that did not end."""
PYTHONS = ">=3.12,<3.14"
SIZE_GB = 8
FREE_GB = 12
"""What a build needs free: the environment, the package cache beside it, and room to unpack."""


def lock_hash() -> str:
    """Hex sha256 of the trainer's lock: it stands for the version of everything that trains."""
    return hashlib.sha256(LOCK_FILE.read_bytes()).hexdigest()


def folder() -> Path:
    """Where the environment is, or would be built.

    AXOSWEEP_TRAINER (the environment's folder or its python) wins; a checkout has its own; an installed
    axosweep keeps one per lock in the user's data folder.
    """
    if chosen := os.environ.get("AXOSWEEP_TRAINER"):
        path = Path(chosen).expanduser().absolute()
        return path.parent.parent if path.name.startswith("python") else path
    if root := checkout_root():
        return root / ".axosweep" / "trainer"
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return data / "axosweep" / f"trainer-{lock_hash()[:8]}"


def find() -> Path:
    """The trainer's python. A SweepError says what to do when there is none, or it is not the locked one."""
    return check(folder(), ours="AXOSWEEP_TRAINER" not in os.environ)


def built_from() -> str | None:
    """The hash of the lock that the environment was built from; None when there is none, or we did not build it."""
    return _stamp(folder())


def check(environment: Path, *, ours: bool) -> Path:
    """The python of an environment that may be used. `ours`: axosweep built it, so that it must have a stamp."""
    python = environment / "bin" / "python"
    built_from = _stamp(environment)
    if not python.exists() or built_from == UNFINISHED or (ours and built_from is None):
        raise SweepError(
            f"There is no trainer environment yet (looked for {environment}). "
            f"Run `axosweep setup`: it installs Axolotl, about {SIZE_GB} GB."
        )
    # An environment without a stamp is one that the user made and named: theirs to answer for.
    if built_from not in (None, lock_hash()):
        raise SweepError(
            f"The trainer environment in {environment} was built from another lock than {LOCK_FILE.name} "
            "says now. Run `axosweep setup` (in a checkout: `make trainer`) to bring it up to date."
        )
    return python


def build() -> Path:
    """Build the environment, or bring it up to date; nothing to do when it is. Returns its python.

    Two builders at once take turns. uv shows its own progress on stderr.
    """
    environment = folder()
    python = environment / "bin" / "python"
    if _stamp(environment) == lock_hash():
        return python
    if "AXOSWEEP_TRAINER" in os.environ:
        _refuse_what_is_not_ours(environment)
    with _alone(environment):
        if _stamp(environment) != lock_hash():
            _build(environment)
    return python


def _refuse_what_is_not_ours(environment: Path) -> None:
    """A build empties the folder, or takes out every package that the lock does not name."""
    if _stamp(environment) is None and os.path.lexists(environment) and not _is_empty_folder(environment):
        raise SweepError(
            f"AXOSWEEP_TRAINER names {environment}, which axosweep did not make, and a build would replace what is in "
            "it. Name a folder that is new or empty."
        )


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _build(environment: Path) -> None:
    uv = _uv()
    # A compiler is wanted by packages that come as source only, and by triton at run time.
    if not any(shutil.which(name) for name in (os.environ.get("CC"), "cc", "gcc", "clang") if name):
        raise SweepError(
            "There is no C compiler (looked for $CC, cc, gcc, clang), and the trainer environment needs one. "
            "Install it (on Debian and Ubuntu: apt install build-essential)."
        )
    python = environment / "bin" / "python"
    usable = _usable(python)
    if not usable:
        _check_free_space(environment)
    terminal.message(f"axosweep: trainer environment (Axolotl and PyTorch, about {SIZE_GB} GB) in {environment}")
    if not usable:
        _run([uv, "venv", "--quiet", "--clear", *_python_choice(), str(environment)], "could not be created")
    write_atomically(environment / STAMP, UNFINISHED)
    # `uv pip sync`, not `install`: that would resolve again and trip over Axolotl's own zstandard pin.
    sync = [uv, "pip", "sync", "--require-hashes", "--compile-bytecode", "--python", str(python)]
    _run([*sync, str(LOCK_FILE)], "could not be installed")
    write_atomically(environment / STAMP, lock_hash() + "\n")


def _stamp(environment: Path) -> str | None:
    try:
        return (environment / STAMP).read_text(encoding="utf-8").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None


@contextlib.contextmanager
def _alone(environment: Path) -> Iterator[None]:
    environment.parent.mkdir(parents=True, exist_ok=True)
    with (environment.parent / f"{environment.name}.lock").open("a") as file:
        if not try_lock(file.fileno()):
            terminal.message(f"axosweep: another process is building {environment}; waiting for it")
            lock(file.fileno())
        yield


def _uv() -> str:
    beside = Path(sys.executable).parent / "uv"
    found = str(beside) if beside.exists() else shutil.which("uv")
    if found is None:
        raise SweepError("uv is missing, and the trainer environment is built with it. Run `pip install uv`.")
    return found


def _usable(python: Path) -> bool:
    """Whether there is an environment already, of a Python that the lock was made for."""
    code = "import sys; raise SystemExit(sys.version_info[:2] not in ((3, 12), (3, 13)))"
    return python.exists() and subprocess.run([python, "-c", code], check=False).returncode == 0


def _python_choice() -> list[str]:
    if "UV_PYTHON" in os.environ:
        return []
    own = Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}"
    return ["--python", str(own) if sys.version_info[:2] in ((3, 12), (3, 13)) and own.exists() else PYTHONS]


def _check_free_space(environment: Path) -> None:
    free_gb = shutil.disk_usage(environment.parent).free / 1e9
    if free_gb < FREE_GB:
        raise SweepError(
            f"{free_gb:.0f} GB are free at {environment.parent}, and building the trainer environment takes "
            f"{FREE_GB} GB (it keeps about {SIZE_GB}). Free some, or name a new folder elsewhere: AXOSWEEP_TRAINER."
        )


def _run(command: list[str], what_failed: str) -> None:
    environment = {"UV_PYTHON_DOWNLOADS": "never"} | dict(os.environ)
    # Another active environment must not decide where this one is built.
    environment.pop("VIRTUAL_ENV", None)
    done = subprocess.run(command, env=environment, stdout=sys.stderr.fileno(), check=False)
    if done.returncode != 0:
        raise SweepError(
            f"The trainer environment {what_failed}; uv's message is above. It needs Python {PYTHONS} and a "
            "package index (behind a mirror: UV_DEFAULT_INDEX). What was fetched is kept: run it again."
        )


if __name__ == "__main__":
    try:
        build()
    except SweepError as error:
        sys.exit(f"axosweep: {error}")
