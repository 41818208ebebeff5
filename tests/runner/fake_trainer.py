"""Stands in for the trainer's Python, in the launcher's own words with it: it answers questions about configs as it is
told, and cannot run a step. Makes tests of what precedes a launch fast; what Axolotl really says is tested elsewhere.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

LAST_WORDS = "a library is missing"

_SCRIPT = """\
#!{python}
import json, socket, sys
from pathlib import Path

REFUSED = json.loads({refused!r})
WARNED = json.loads({warned!r})


def answer(folder):
    with Path({asked!r}).open("a") as log:
        log.write(Path(folder, "questions.json").read_text() + "\\n")
    answers = []
    for question in json.loads(Path(folder, "questions.json").read_text()):
        told = [one for one in REFUSED if one["keys"][0] in question["config"]]
        answers.append({{"problems": told, "warnings": WARNED}})
    Path(folder, "answers.json").write_text(json.dumps(answers))


entry, *words = sys.argv[2:]  # of modal_app/run.py
if entry == "validate":
    answer(words[0])
    sys.exit(0)
if entry == "tasks":
    print("{{}}")  # there is no task that it does not know
    sys.exit(0)
line, _ = socket.socket(fileno=int(sys.argv[sys.argv.index("--listen") + 1])).accept()
line.sendall(b'{{"event": "ready"}}\\n')
for text in line.makefile("rb"):
    request = json.loads(text)
    if "validate" in request:
        answer(request["validate"])
        line.sendall(b'{{"event": "validated", "code": 0}}\\n')
    elif "step" in request:
        break
print({last_words!r}, file=sys.stderr)
sys.exit(7)
"""


def make_trainer(folder: Path, *, refused: Sequence[Mapping[str, Any]] = (), warned: Sequence[str] = ()) -> Path:
    """Its folder, for AXOSWEEP_TRAINER. `refused`: problems of each config that has their first key."""
    python = folder / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(
        _SCRIPT.format(
            python=sys.executable,
            refused=json.dumps(list(refused)),
            warned=json.dumps(list(warned)),
            asked=str(folder / "asked.jsonl"),
            last_words=LAST_WORDS,
        )
    )
    python.chmod(0o755)
    return folder


def asked(folder: Path) -> list[list[Mapping[str, Any]]]:
    """The questions that it was asked, a list for each time."""
    log = folder / "asked.jsonl"
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
