"""The newest release candidate of Hydra starts and composes the same, and what is composed fast is equal to that."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NEXT = ("hydra-core==1.4.0rc3", "omegaconf==2.4.1rc1")
BESIDE = ("hypothesis", "pydantic", "pytest", "pytest-timeout", "pyyaml", "rich")
HOME = ROOT / ".axosweep" / "next-hydra"


@pytest.fixture
def python() -> Path:
    """The Python of an environment with that Hydra, created once: a new one compiles everything that it imports."""
    python, built = HOME / "bin" / "python", HOME / "built-from"
    wanted = "\n".join((*NEXT, *BESIDE, sys.version))
    if not built.exists() or built.read_text() != wanted:
        shutil.rmtree(HOME, ignore_errors=True)
        uv = Path(sys.executable).with_name("uv")
        subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, HOME], check=True)
        command: list[str | Path] = [uv, "pip", "install", "--quiet", "--prerelease=allow", "--python", python]
        installed = subprocess.run([*command, *NEXT, *BESIDE], capture_output=True, text=True, check=False)
        if installed.returncode != 0:
            pytest.skip(f"the release candidate cannot be installed here: {installed.stderr[-300:]}")
        built.write_text(wanted)
    return python


@pytest.mark.slow
def test_jobs_are_composed_as_the_next_hydra_composes_them(python: Path) -> None:
    tests = [f"tests/runner/test_{name}.py" for name in ("fast_compose", "hydra_plugins", "application")]
    tests += ["-k", "not version and not mix", "-p", "no:cacheprovider", "-q"]  # axosweep is not installed there
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    done = subprocess.run(
        [python, "-m", "pytest", *tests], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    version = subprocess.run([python, "-c", "import hydra; print(hydra.__version__)"], capture_output=True, check=True)
    assert version.stdout.decode().startswith("1.4.")
