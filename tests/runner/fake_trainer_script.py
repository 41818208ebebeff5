"""The program behind the Python that fake_trainer.py creates: `python -S fake_trainer_script.py FOLDER run.py ENTRY
...`.

It uses the launcher's protocol, and imports little: each question and each step is a process of its own.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

TYPE_CHECKING = False  # typing takes as long to import as the rest
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

BEHAVIOUR, ASKED = "behaviour.json", "asked.jsonl"
LAST_WORDS = "a library is missing"
EXIT_BROKEN = 7


def main(folder: Path, entry: str, words: list[str]) -> int:
    behaviour = json.loads((folder / BEHAVIOUR).read_text())
    if entry == "validate":
        answer(folder, behaviour, Path(words[0]))
        return 0
    if entry == "tasks":
        print("{}")  # it knows every task
        return 0
    if entry == "worker" and behaviour["works"]:
        return work(json.loads(sys.stdin.read()))
    if entry == "preloaded-trainer" and Preloaded(folder, behaviour, int(words[words.index("--listen") + 1])).serve():
        return 0
    print(LAST_WORDS, file=sys.stderr)
    return EXIT_BROKEN


def answer(folder: Path, behaviour: Mapping[str, Any], requested: Path) -> None:
    questions = (requested / "questions.json").read_text()
    with (folder / ASKED).open("a") as log:
        log.write(questions + "\n")
    answers = [
        {
            "problems": [one for one in behaviour["refused"] if one["keys"][0] in question["config"]],
            "warnings": behaviour["warned"],
        }
        for question in json.loads(questions)
    ]
    (requested / "answers.json").write_text(json.dumps(answers))


def work(step: Mapping[str, Any]) -> int:
    """Do what the step's config says: `deaf`, `child`, `sees`, `seconds`, and at the end an exit code."""
    config = step["config"]
    if config.get("deaf"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if config.get("child"):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        Path(config["child"]).write_text(str(child.pid))
    if config.get("sees"):
        seen = {"argv": sys.argv[2:], "pid": os.getpid(), "session": os.getsid(0), "said": os.environ.get("SAID")}
        said = Path(config["sees"])
        said.with_suffix(".part").write_text(json.dumps(seen))
        said.with_suffix(".part").rename(said)
    time.sleep(config.get("seconds", 0))
    return int(config.get("code", 0))


class Preloaded:
    """A preloaded trainer for one command; `ends_all` in a step's config ends it."""

    def __init__(self, folder: Path, behaviour: Mapping[str, Any], listening: int) -> None:
        self.folder, self.behaviour = folder, behaviour
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        time.sleep(float(os.environ.get("PYTHON_IMPORTING", 0)))
        print("imported", file=sys.stderr, flush=True)
        self.line, _ = socket.socket(fileno=listening).accept()
        self.is_open, self.unread = True, b""
        self.children: dict[int, Mapping[str, Any]] = {}

    def say(self, **event: Any) -> None:
        if self.is_open:
            self.line.sendall(json.dumps(event).encode() + b"\n")

    def serve(self) -> bool:
        """Serve until the command has disconnected and every fork has ended. False if it gets a step and cannot run
        it."""
        if os.environ.get("PYTHON_WOKEN"):
            self.say(event="refused", why="an import has initialized CUDA")
            return True
        self.say(event="ready", seconds=0.1)
        while self.is_open or self.children:
            for request in self.requests():
                if "context" in request:
                    os.environ.update(request["context"]["environment"])
                if "validate" in request:
                    answer(self.folder, self.behaviour, Path(request["validate"]))
                    self.say(event="validated", code=0)
                if "step" in request:
                    if not self.behaviour["works"]:
                        return False
                    self.fork(request["step"])
            self.reap()
        return True

    def requests(self) -> list[Mapping[str, Any]]:
        """The requests that came within a hundredth of a second."""
        if not self.is_open:
            time.sleep(0.01)
            return []
        if not select.select([self.line], [], [], 0.01)[0]:
            return []
        block = self.line.recv(1 << 16)
        self.is_open = bool(block)
        *lines, self.unread = (self.unread + block).split(b"\n")
        return [json.loads(line) for line in lines]

    def fork(self, step: Mapping[str, Any]) -> None:
        if step["config"].get("ends_all"):
            os._exit(3)
        pid = os.fork()
        if not pid:
            os.setsid()
            self.line.close()
            os._exit(work(step))
        self.children[pid] = step
        self.say(event="started", kind=step["kind"], key=step["key"], pid=pid)

    def reap(self) -> None:
        for pid in list(self.children):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                step, code = self.children.pop(pid), os.waitstatus_to_exitcode(status)
                self.say(event="exited", kind=step["kind"], key=step["key"], pid=pid, code=code)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[3], sys.argv[4:]))
