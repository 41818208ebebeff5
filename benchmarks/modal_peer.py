"""hydra-modal-launcher in a folder of its own, to be measured next to axosweep."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from tests.modal_server import Settings

NAME, VERSION = "hydra-modal-launcher", "0.3.0"
APPLICATION = Path(__file__).resolve().parent / "hydra_noop.py"

Command = Callable[[range], Sequence[str]]
"""A launch of the runs with these numbers."""


def install(folder: Path) -> tuple[Settings, Command, Path]:
    """Its containers, its command, and the folder to start it from. Its Modal and Hydra are axosweep's versions."""
    python = folder / "venv" / "bin" / "python"
    pins = [f"{name}=={version(name)}" for name in ("modal", "hydra-core")]
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, folder / "venv"], check=True)
    subprocess.run([uv, "pip", "install", "--quiet", "--python", python, f"{NAME}=={VERSION}", *pins], check=True)

    def command(numbers: range) -> list[str]:
        values = ",".join(map(str, numbers))
        gpu = "hydra.launcher.function.gpu=A100-80GB:2"
        return [str(python), "-m", APPLICATION.stem, "-m", "hydra/launcher=modal", f"+x={values}", gpu]

    work = folder / "peer"
    work.mkdir()
    (work / APPLICATION.name).write_text(APPLICATION.read_text())
    return Settings(container_python=python, visible=(folder,)), command, work
