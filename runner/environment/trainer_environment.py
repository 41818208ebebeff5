"""Finds, checks and builds the trainer environment, in which Axolotl is installed.

Hydra and Axolotl cannot be installed together, so Axolotl has its own environment, built from
modal_app/trainer/requirements.lock. The Modal image is built from the same lock.
`python -m runner.environment.trainer_environment` builds it, like `axosweep setup`.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import modal_app
from modal_app.cloud.settings import PYTHON as PYTHON_ON_MODAL
from modal_app.cloud.settings import Deployment, trainer_identity
from modal_app.store.flock import lock, try_lock
from modal_app.store.step import write_atomically
from runner.config.shipped import checkout_root
from runner.console import terminal
from runner.environment.bytecode import compile_modules
from runner.errors import SweepError

LOCK_FILE = Path(modal_app.__file__).resolve().parent / "trainer" / "requirements.lock"
STAMP = "built-from.sha256"
"""The file in the environment with the hash of the lock that it was built from. It is written last."""
UNFINISHED = "unfinished"
"""The stamp during a build, and after one that was interrupted."""
PYTHONS = ">=3.12,<3.14"
MINORS = ("3.12", "3.13")
SAY_VERSION = "import sys; print('%d.%d' % sys.version_info[:2])"
SIZE_GB = 8
FREE_GB = 12
"""The free space that a build needs: for the environment, the package cache, and unpacking."""


def lock_hash() -> str:
    """Hex sha256 of the trainer's lock, which represents the versions of all packages that train."""
    seen = LOCK_FILE.stat()
    return _sha256_as_of(LOCK_FILE, seen.st_mtime_ns, seen.st_size)


@functools.lru_cache(maxsize=1)
def _sha256_as_of(file: Path, changed: int, size: int) -> str:
    """Cached, since each run and dataset of a sweep is identified by it."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def identity(deployment: Deployment | None) -> str:
    """What every key says of the trainer: of this machine's, or of a deployment's on Modal."""
    return trainer_identity(lock_hash(), deployment, PYTHON_ON_MODAL if deployment else python_version())


def describe(known: str) -> str:
    """The trainer with this identity, for people: with which Python, if it has the packages of the lock alone."""
    pythons = (python for python in MINORS if trainer_identity(lock_hash(), None, python) == known)
    return next((f"Python {python}" for python in pythons), "other packages")


def python_version() -> str:
    """The minor version (3.12) of the Python that trains on this machine. Before there is an environment, that of the
    Python that `build` would choose."""
    environment = folder()
    known = _version(environment)
    theirs = "AXOSWEEP_TRAINER" in os.environ and _stamp(environment) is None
    return known if known and (theirs or known in MINORS) else _chosen_version()


def folder() -> Path:
    """Where the environment is, or would be built.

    AXOSWEEP_TRAINER (the environment's folder or its python) comes first. Otherwise, a checkout has its own, and an
    installed axosweep has one per lock in the user's data folder.
    """
    if chosen := os.environ.get("AXOSWEEP_TRAINER"):
        path = Path(chosen).expanduser().absolute()
        return path.parent.parent if path.parent.name == "bin" and path.name.startswith("python") else path
    if root := checkout_root():
        return root / ".axosweep" / "trainer"
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return data / "axosweep" / f"trainer-{lock_hash()[:8]}"


def find() -> Path:
    """The trainer's python. Raises SweepError when there is none, or it was built from another lock."""
    return check(folder(), ours="AXOSWEEP_TRAINER" not in os.environ)


def built_from() -> str | None:
    """The hash of the lock that the environment was built from; None when there is none, or we did not build it."""
    return _stamp(folder())


def check(environment: Path, *, ours: bool) -> Path:
    """The python of an environment, checked. `ours`: axosweep built it, so it must have a stamp."""
    python = environment / "bin" / "python"
    built_from = _stamp(environment)
    if not python.exists() or built_from == UNFINISHED or (ours and built_from is None):
        raise SweepError(
            f"There is no trainer environment yet (looked for {environment}). "
            f"Run `axosweep setup`: it installs Axolotl, about {SIZE_GB} GB."
        )
    # An environment without a stamp was created by the user, who is responsible for it.
    if built_from not in (None, lock_hash()):
        raise SweepError(
            f"The trainer environment in {environment} was built from another lock than the current "
            f"{LOCK_FILE.name}. Run `axosweep setup` (in a checkout: `make trainer`) to bring it up to date."
        )
    return python


def build() -> Path:
    """Build the environment unless it is up to date. Returns its python.

    Of two builders, the second waits for the first. uv shows its own progress on stderr.
    """
    environment = folder()
    python = environment / "bin" / "python"
    if _stamp(environment) == lock_hash():
        return python
    if "AXOSWEEP_TRAINER" in os.environ:
        _refuse_what_is_not_ours(environment)
    with _locked(environment):
        if _stamp(environment) != lock_hash():
            _build(environment)
    return python


def _refuse_what_is_not_ours(environment: Path) -> None:
    """A build would empty the folder, or remove every package that is not in the lock."""
    if _stamp(environment) is None and os.path.lexists(environment) and not _is_empty_folder(environment):
        raise SweepError(
            f"AXOSWEEP_TRAINER names {environment}, which axosweep did not create, and a build would replace its "
            "contents. Name a folder that is new or empty."
        )


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _refuse_while_used(environment: Path) -> None:
    """A run at work would import the new versions of what it has not imported yet, under the key of the old ones."""
    pythons = tuple(os.fsencode(folder / "bin" / "python") for folder in (environment, environment.resolve()))
    found: list[str] = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended
            if path.read_bytes().startswith(pythons):
                found.append(path.parent.name)
    if found:
        raise SweepError(
            f"The trainer environment in {environment} is used by process {', '.join(found)}. Wait until the runs have "
            "ended, or stop them with `axosweep cancel`; `axosweep warm stop` ends preloaded trainers that wait."
        )


def _build(environment: Path) -> None:
    _refuse_while_used(environment)
    uv = _uv()
    # Packages without wheels need a compiler, and so does triton at run time.
    if not any(shutil.which(name) for name in (os.environ.get("CC"), "cc", "gcc", "clang") if name):
        raise SweepError(
            "There is no C compiler (looked for $CC, cc, gcc, clang), but the trainer environment needs one. "
            "Install one (on Debian and Ubuntu: apt install build-essential)."
        )
    python = environment / "bin" / "python"
    usable = _version(environment) in MINORS
    if not usable:
        _check_free_space(environment)
    terminal.message(f"axosweep: trainer environment (Axolotl and PyTorch, about {SIZE_GB} GB) in {environment}")
    if not usable:
        create(environment)
    write_atomically(environment / STAMP, UNFINISHED)
    # `uv pip install` would resolve again, and fail at Axolotl's own zstandard pin.
    sync = [uv, "pip", "sync", "--require-hashes", "--python", str(python)]
    _run([*sync, str(LOCK_FILE)], "could not be installed")
    compile_modules(python)  # not by uv, which shows nothing meanwhile
    write_atomically(environment / STAMP, lock_hash() + "\n")


def create(environment: Path) -> None:
    """An environment without packages, in place of what is there."""
    venv = [_uv(), "venv", "--quiet", "--clear", "--python", _python_choice(), str(environment)]
    _run(venv, "could not be created")


def _stamp(environment: Path) -> str | None:
    try:
        return (environment / STAMP).read_text(encoding="utf-8").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None


@contextlib.contextmanager
def _locked(environment: Path) -> Iterator[None]:
    environment.parent.mkdir(parents=True, exist_ok=True)
    with (environment.parent / f"{environment.name}.lock").open("a") as file:
        if not try_lock(file.fileno()):
            terminal.message(f"axosweep: another process is building {environment}; waiting for it")
            lock(file.fileno())
        yield


def _uv() -> str:
    own = Path(sys.executable).parent / "uv"
    found = str(own) if own.exists() else shutil.which("uv")
    if found is None:
        raise SweepError("uv is missing, which builds the trainer environment. Run `pip install uv`.")
    return found


def _version(environment: Path) -> str | None:
    """The minor version of an environment's Python; None when no Python works there.

    The Python itself is run, which takes 10 ms: the file that describes a virtual environment does not change when its
    Python is replaced.
    """
    return _answer([str(environment / "bin" / "python"), "-I", "-S", "-c", SAY_VERSION])


def _chosen_version() -> str:
    """The version of the Python with which `build` would create an environment; that of the containers when there is
    none here."""
    choice = _python_choice()
    if choice == str(_own_python()):
        return f"3.{sys.version_info.minor}"
    found = _answer([_uv(), "python", "find", "--system", "--no-project", choice])
    return (found and _answer([found, "-I", "-S", "-c", SAY_VERSION])) or PYTHON_ON_MODAL


@functools.lru_cache(maxsize=8)
def _output(command: tuple[str, ...], changed: float) -> str | None:
    environment = {**os.environ, "UV_PYTHON_DOWNLOADS": "never"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def _answer(command: list[str]) -> str | None:
    """What a program prints; None if it fails. The same program is run only once."""
    try:
        return _output(tuple(command), Path(command[0]).stat().st_mtime)
    except OSError:
        return None


def _python_choice() -> str:
    """As `uv venv --python` takes it."""
    own = _own_python()
    return os.environ.get("UV_PYTHON") or (str(own) if own else PYTHONS)


def _own_python() -> Path | None:
    """The launcher's, if it can be the trainer's, too."""
    own = Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}"
    return own if f"3.{sys.version_info.minor}" in MINORS and own.exists() else None


def _check_free_space(environment: Path) -> None:
    free_gb = shutil.disk_usage(environment.parent).free / 1e9
    if free_gb < FREE_GB:
        raise SweepError(
            f"{free_gb:.0f} GB are free at {environment.parent}, but building the trainer environment needs "
            f"{FREE_GB} GB (about {SIZE_GB} remain in use). Free some, or name a new folder elsewhere: "
            "AXOSWEEP_TRAINER."
        )


def _run(command: list[str], what_failed: str) -> None:
    environment = {"UV_PYTHON_DOWNLOADS": "never"} | dict(os.environ)
    # Another active environment must not decide where this one is built.
    environment.pop("VIRTUAL_ENV", None)
    done = subprocess.run(command, env=environment, stdout=sys.stderr.fileno(), check=False)
    if done.returncode != 0:
        raise SweepError(
            f"The trainer environment {what_failed}; uv's message is above. It needs Python {PYTHONS} and a "
            "package index (behind a mirror: UV_DEFAULT_INDEX). Run it again; finished downloads are not repeated."
        )


if __name__ == "__main__":
    try:
        build()
    except SweepError as error:
        sys.exit(f"axosweep: {error}")
