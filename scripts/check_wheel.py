"""Check that an installed wheel works and imports little, by the commands that docs/install.md says to run.

    .venv/bin/python scripts/check_wheel.py

In a copy of the checkout, whose lock of the trainer has one small package: `axosweep setup` is run for what it does
with a lock, not for 8 GB. So the one command of the page that trains is left out; the tests train in a checkout.
Prints what was checked; exit code 1 at the first problem. Packages come from the index that uv and pip use.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("axosweep", "runner", "modal_app", "hydra_plugins", "conf", "sweeps", "tiny")
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
SMALL = "packaging"
"""The package of the small lock."""


def main() -> int:
    as_a_tool, with_pip, project = _blocks("As a tool")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        checkout, env = _copy(place / "checkout"), place / "env"
        tools = {"UV_TOOL_DIR": str(place / "tools"), "UV_TOOL_BIN_DIR": str(place / "bin")}
        _run(["sh", "-euxc", as_a_tool], checkout, place / "bin", XDG_DATA_HOME=str(place / "tool-data"), **tools)
        (place / "empty").mkdir()
        starts_nothing = re.sub(r"^axosweep -m .*\n", "", project, flags=re.MULTILINE)
        _run(["sh", "-euxc", starts_nothing], place / "empty", place / "bin", XDG_DATA_HOME=str(place / "no-trainer"))
        _run([ROOT / ".venv/bin/uv", "venv", "--quiet", "--seed", "--python", sys.executable, env], place, place)
        _run(["sh", "-euxc", with_pip], checkout, env / "bin", XDG_DATA_HOME=str(place / "pip-data"))
        for data in ("tool-data", "pip-data"):
            if not [*(place / data / "axosweep").glob(f"trainer-*/lib/python3.*/site-packages/{SMALL}/__init__.py")]:
                sys.exit(f"axosweep setup has not installed {SMALL} below {data}.")
        _run([env / "bin" / "python", "-P", "-c", HELP], place, env / "bin")
        _run(["axosweep", "--cfg", "job", "-p", "axolotl", "lora=r8"], place / "empty" / "my-project", env / "bin")
    print("The installed wheel works, as a uv tool and with pip: setup builds an environment, --help imports little, ")
    print("init writes, configs are found, a sweep is planned.")
    return 0


def _blocks(heading: str) -> list[str]:
    """The commands of a section of the page, block by block."""
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    section = page.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^```\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


def _copy(checkout: Path) -> Path:
    """What a wheel is built from, with the small lock."""
    checkout.mkdir()
    for name in COPIED:
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "requirements.lock", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, checkout / name)
    (checkout / ".venv").symlink_to(ROOT / ".venv")
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    (small,) = re.findall(rf"^{SMALL}==.*\n(?: .*\n)+", lock, re.MULTILINE)
    (checkout / "modal_app" / "trainer" / "requirements.lock").write_text(small, encoding="utf-8")
    return checkout


def _run(words: list[str | Path], cwd: Path, first_in_path: Path, **more: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment |= {"PATH": f"{first_in_path}{os.pathsep}{environment['PATH']}", **more}
    done = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        shown = " ".join(map(str, words))
        sys.exit(f"{shown}\nended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")


if __name__ == "__main__":
    sys.exit(main())
