"""The axosweep command with a store of its own, and the moments of its run at which a test acts."""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from modal_app.store.claim import holder
from modal_app.store.layout import Store
from modal_app.store.step import StepKind
from runner.executors.warm_server import VARIABLE, running
from tests import forked_command
from tests.forked_trainer.popen import BROKER
from tests.printed_json import read_printed
from tests.runner.fake_trainer import make_trainer

COMMAND = Path(__file__).parents[1] / "forked_trainer" / "command_script.py"
TIMEOUT_S = 600.0
A_STEP_S, A_SAVE_S = 0.01, 0.001
"""Less than a step takes, and less than a part of a save takes."""
UNPADDED = "pad_to_sequence_len=false"
"""For tests that train on the tiny task. Its rows have 18 tokens at most, and Axolotl pads each batch of them to 64, so
steps of 16 rows take twice as long. With this setting, they are padded to the longest row of their batch.
"""
TRAINED_ONCE = ("lora=r4,r32", "learning_rate=4e-3", "num_epochs=1", UNPADDED, "tracking=disabled")
"""The sweep that many tests share, which is trained once."""
WAITS_S = 120.0
"""How long a preloaded trainer waits: longer than the time between two tests that use it."""


@dataclass(frozen=True)
class Axosweep:
    store: Store
    folder: Path
    """The working directory."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables beyond those of the tests."""

    def run(self, *words: str, timeout_s: float = TIMEOUT_S) -> subprocess.CompletedProcess[str]:
        return forked_command.run(words, self.folder, self.variables(), timeout_s)

    def run_in_turn(
        self, lines: Sequence[Sequence[str]], timeout_s: float = TIMEOUT_S
    ) -> list[subprocess.CompletedProcess[str]]:
        """Several commands, one after the other in one process, which takes half of the time."""
        return forked_command.run_in_turn(lines, self.folder, self.variables(), timeout_s)

    def json(self, *words: str) -> Any:
        """The output of a command that must succeed, read as JSON; it fits the documented schema."""
        done = self.run(*words, "--json")
        assert done.returncode == 0, done.stderr
        return read_printed(words[0], done.stdout)

    def start(self, *words: str, stderr: int = subprocess.STDOUT) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self._command(words), cwd=self.folder, env=self.variables(), text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=stderr,
        )  # fmt: skip

    def shown(self, *words: str, timeout_s: float = TIMEOUT_S) -> str:
        """What a command shows while it works, on a terminal of 200 columns, until it ends."""
        ours, theirs = pty.openpty()
        environment = {**self.variables(), "COLUMNS": "200", "LINES": "50", "TERM": "xterm"}
        with subprocess.Popen(
            self._command(words), cwd=self.folder, env=environment, stdout=subprocess.DEVNULL, stderr=theirs
        ) as process:
            os.close(theirs)
            shown = b""
            with contextlib.suppress(OSError):  # a terminal that is closed already
                while chunk := os.read(ours, 1 << 16):
                    shown += chunk
            process.wait(timeout_s)
        os.close(ours)
        return shown.decode(errors="replace")

    def records(self, event: str | None = None) -> list[dict[str, Any]]:
        """The records of every sweep in the store, without one that is being written."""
        lines = [
            json.loads(line)
            for path in self.store.sweeps.glob("*/records.jsonl")
            for line in path.read_text().splitlines()
            if line.endswith("}")
        ]
        return [line for line in lines if event is None or line["event"] == event]

    def run_keys(self) -> list[str]:
        return sorted(path.name for path in self.store.runs.glob("*")) if self.store.runs.exists() else []

    def has_a_sweep(self) -> bool:
        """Whether a launch is recorded. A preloaded trainer may start before."""
        return any(self.store.sweeps.glob("*/plan.json"))

    def processes(self) -> list[int]:
        """Every live process that was started for this store, by its command line or its working directory."""
        return [pid for pid in _all_pids() if pid != os.getpid() and self._belongs(pid)]

    def preloaded(self) -> int | None:
        """The preloaded trainer of this store, even if it still imports, without its forks."""
        found = running(self.store.root)
        return found[0].owner.pid if found else None

    def with_variables(self, variables: Mapping[str, str]) -> Axosweep:
        """The same place, with more variables for its commands."""
        return replace(self, environment={**self.environment, **variables})

    def without_forks(self) -> Axosweep:
        """The same place, whose commands and trainers are started as a user would start them, for tests that look at
        processes."""
        return self.with_variables({BROKER: ""})

    def waiting(self) -> Axosweep:
        """The same place, with a preloaded trainer that waits for the next command."""
        return self.with_variables({VARIABLE: str(WAITS_S)})

    def ending(self) -> Axosweep:
        """The same place, with a preloaded trainer (a running one, if there is one) that ends with its last command."""
        return self.with_variables({VARIABLE: "0"})

    @property
    def verdicts(self) -> Path:
        """The file with the verdicts of Axolotl's schema."""
        return self.store.cache / "verdicts.json"

    def know_verdicts(self, verdicts: str) -> None:
        """Store the verdicts of Axolotl's schema, so that a preloaded trainer is needed only for steps."""
        self.store.cache.mkdir(parents=True)
        self.verdicts.write_text(verdicts)

    def empty(self) -> None:
        """Empty the store and the folder, but do not remove them: a preloaded trainer ends without its store."""
        for path in (*self.store.root.iterdir(), *self.folder.iterdir()):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()

    def left_behind(self) -> list[int]:
        """Its live processes, without a preloaded trainer that should wait."""
        waits = self.preloaded() if self.environment.get(VARIABLE, "0") != "0" else None
        return [pid for pid in self.processes() if pid != waits]

    def _belongs(self, pid: int) -> bool:
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            place = os.readlink(f"/proc/{pid}/cwd")
        except OSError:
            return False
        root = str(self.store.root)
        return state != "Z" and (root in command or place.startswith(root))

    def _command(self, words: tuple[str, ...]) -> list[str]:
        return [sys.executable, str(COMMAND), *words]

    def variables(self) -> Mapping[str, str]:
        """The environment of its commands."""
        ours = {"AXOSWEEP_STORE": str(self.store.root), "PYTHONUNBUFFERED": "1", VARIABLE: "0"}
        if "MODAL_SERVER_URL" in self.environment:
            ours["AXOSWEEP_TRAINER"] = str(_content_trainer())
        return {**os.environ, **ours, **self.environment}


@functools.cache
def _content_trainer() -> Path:
    """For sweeps on Modal, this machine only checks configs. This trainer takes no time and accepts all of them."""
    folder = Path(tempfile.mkdtemp(prefix="axosweep-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return make_trainer(folder / "trainer")


def wait_until(true: Callable[[], bool], what: str, timeout_s: float = TIMEOUT_S, pause_s: float = A_STEP_S) -> None:
    """Poll often enough to act between two steps, or during a save. Each poll takes CPU from the process that is waited
    for."""
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, f"never came: {what}"
        time.sleep(pause_s)


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def kill_all(pids: Iterable[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            kill(pid)


def held_by(store: Store, kind: StepKind, key: str) -> int | None:
    """The process that works on a step."""
    owner = holder(store.folder(kind, key))
    return owner.pid if owner and owner.pid else None


def _all_pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]
