"""Check that an installed wheel works and imports little: build it, install it into an empty environment, run it.

    .venv/bin/python scripts/check_wheel.py

Prints what was checked; exit code 1 at the first problem. Packages come from the index that uv uses.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("hydra", "huggingface_hub", "modal", "omegaconf", "torch", "wandb")
"""Packages that a command which composes nothing must not import."""
HELP = f"""
import sys
from runner.cli import main
code = main(["--help"])
leaked = sorted(set({HEAVY!r}) & set(sys.modules))
print(f"exit code {{code}}, imported: {{leaked}}", file=sys.stderr)
sys.exit(1 if code or leaked else 0)
"""


def main() -> int:
    uv = Path(sys.executable).with_name("uv")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        _run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", place, cwd=ROOT)
        (wheel,) = place.glob("*.whl")
        _run(uv, "venv", "--quiet", "--python", sys.executable, place / "env")
        python, axosweep = place / "env" / "bin" / "python", place / "env" / "bin" / "axosweep"
        _run(uv, "pip", "install", "--quiet", "--python", python, "--constraint", ROOT / "requirements.lock", wheel)
        _run(python, "-P", "-c", HELP, cwd=place)
        _run(axosweep, "init", "project", cwd=place)
        _run(axosweep, "--cfg", "job", "-p", "axolotl", "lora=r8", cwd=place / "project")
        _run(axosweep, "plan", "-m", "+sweeps=first", "--json", cwd=place / "project")
    print("The installed wheel works: --help imports little, init writes, configs are found, a sweep is planned.")
    return 0


def _run(*words: str | Path, cwd: Path | None = None) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        shown = " ".join(map(str, words))
        sys.exit(f"{shown}\nended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")


if __name__ == "__main__":
    sys.exit(main())
