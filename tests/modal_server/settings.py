"""What a test may set: times, limits, the containers' Python, and what containers see of this machine."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from tests.modal_server.layers import MEMORY, shared_layers

REPOSITORY = Path(__file__).resolve().parents[2]
LAUNCH = Path(__file__).with_name("launch.py")


@cache
def why_no_mounts() -> str:
    """Empty if a container's private file system can be created here, otherwise the reason why not. Tried once."""
    if os.geteuid() != 0:
        return "private mounts need root"
    if not MEMORY.is_dir():
        return f"private mounts need {MEMORY}"
    with tempfile.TemporaryDirectory(prefix="modal-server-") as folder:
        parts = {part: os.path.join(folder, part) for part in ("root", "upper", "work")}
        for part in parts.values():
            os.mkdir(part)
        nothing: dict[str, object] = {"binds": [], "links": [], "environment": {}}
        nothing["layers"] = shared_layers().layers({}, ())
        spec = parts | nothing | {"mounts": True, "workdir": "/", "argv": ["/bin/true"]}
        Path(folder, "spec.json").write_text(json.dumps(spec))
        command = [sys.executable, "-I", "-S", str(LAUNCH), os.path.join(folder, "spec.json")]
        tried = subprocess.run(command, capture_output=True, text=True, check=False)
    if tried.returncode == 0:
        return ""
    return f"private mounts fail here: {(tried.stderr.splitlines() or ['no message'])[-1]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Times are far shorter than Modal's, so that tests are fast; where Modal's own value is known, it is named."""

    container_python: Path = Path(sys.executable)
    """The interpreter of every container. One that lacks `modal` gets the client's packages appended to its path."""

    container_environment: Mapping[str, str] = field(default_factory=dict)
    """Variables of every container, as if its image had set them. Nothing of this process's environment leaks in."""

    visible: tuple[Path, ...] = ()
    """Paths of this machine that containers may read although they lie under a hidden one."""

    hidden: tuple[Path, ...] = (REPOSITORY,)
    """Paths that containers see empty, besides temporary and home folders: what the image did not add is absent."""

    replaced: Mapping[Path, Path] = field(default_factory=dict)
    """Folders of this machine -> the folders that containers see in their place, even below a visible one."""

    files: Mapping[str, Path] = field(default_factory=dict)
    """Files of this machine put over what the image has: path inside of the container -> source."""

    mounts: bool = field(default_factory=lambda: not why_no_mounts())
    """Private mounts and process namespaces, which need root. Without: no Volumes inside of containers."""

    grace_s: float = 2.0
    """Between the steps of a forced end: cancellation, SIGINT, SIGKILL. Modal: 30."""

    idle_s: float = 20.0
    """How long a container waits for another input, where its function does not say. Modal: 60."""

    max_containers: int = 6
    """For all pools together, so that many calls do not overload the machine. An idle container makes room."""

    start_attempts: int = 2
    """Containers of one pool that may die in a row before their first input; then its queue fails."""

    max_crashes: int = 30
    """Containers that one input may kill. Modal reschedules without an end in deployed apps."""

    retry_delay_factor: float = 0.1
    """Multiplies the delays of a function's retry policy."""

    heartbeat_hold_s: float = 14.0
    """How long a heartbeat is held open to carry a cancellation. Must stay below the client's 15."""

    reload_after_commit: bool = False
    """Tell a container to reload a Volume that it has committed, which fails while it has files open there."""

    commit_bytes_per_s: float = math.inf
    """A commit lasts as long as at this rate for what it carries."""

    billing_rates: Mapping[str, str] | None = None
    """What the workspace pays, by Modal's names: `{"gpu_hour_cost_h100": "3.95"}`. None: it does not say."""

    token: tuple[str, str] = ("ak-local", "as-local")
    """The one token id and secret that are accepted."""

    echo_unknown: bool = True
    """Print the name of each unanswered call, once."""
