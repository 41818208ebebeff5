"""`axosweep doctor`: checks in a few seconds what a sweep needs from this machine and its accounts.

Tokens are not shown, only whether there is one. The checks that use the network run in parallel, for a few seconds.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from runner.console import terminal
from runner.console.parser import VerbParser
from runner.console.print_json import print_json
from runner.environment import trainer_environment
from runner.errors import ExitCode, SweepError
from runner.executors.cards import usable_cards
from runner.keys import hub_commits
from runner.store.stores import open_store
from runner.wandb import account

NETWORK_S = 3.5
"""For all checks that use the network. They run in parallel."""
LITTLE_GB, TOO_LITTLE_GB = 20, 2
"""Free disk: a model and its checkpoints need more than the first; below the second, nothing can be stored."""


def parser() -> VerbParser:
    about = "Check what a sweep needs from this machine and its accounts. Exit code 1 when there is a problem."
    verb = VerbParser("doctor", description=about)
    verb.add("--secret", default="secrets-hf-wandb", help="executor.modal.secret of your sweeps")
    wait = f"time for the hub and Modal to answer; {NETWORK_S:g} by default"
    verb.add("--wait", type=_seconds, default=NETWORK_S, metavar="SECONDS", help=wait)
    verb.add_store()
    verb.add_json()
    return verb


def main(words: Sequence[str]) -> int:
    args = parser().read(words)
    return doctor(args.store, args.secret, args.wait, as_json=args.json)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text}: seconds above 0 are expected")
    return seconds


class Mark(StrEnum):
    OK = "ok"
    NOTE = "note"
    """Needed for some sweeps only, or cannot be checked now."""
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    mark: Mark
    said: str
    way_out: str = ""


@dataclass(frozen=True, slots=True)
class Checks:
    """What `doctor --json` prints."""

    checks: tuple[Check, ...]


def doctor(store_folder: str | None, secret: str, wait_s: float, *, as_json: bool) -> int:
    """Check and print. Returns 1 when there is a problem, otherwise 0."""
    checks = examine(store_folder, secret, wait_s)
    if as_json:
        print_json(Checks(tuple(checks)))
    else:
        _show(checks)
    return ExitCode.FAILED if any(check.mark is Mark.PROBLEM for check in checks) else ExitCode.SUCCEEDED


def examine(store_folder: str | None, secret: str, wait_s: float) -> list[Check]:
    """Every check, in the order in which a first sweep needs them."""
    remote = _ParallelChecks({"hub": lambda: _hub(wait_s), "modal": lambda: _modal(secret, wait_s)})
    here = [_trainer(), _store(store_folder), _disk(store_folder), _compiler(), _gpus()]
    return [*here, *remote.answers(wait_s), _wandb()]


def _show(checks: list[Check]) -> None:
    width = max(len(check.name) for check in checks)
    for check in checks:
        line = f"{check.mark:<8}{check.name:<{width}}  {check.said}"
        style = {Mark.OK: "", Mark.NOTE: "yellow", Mark.PROBLEM: "red"}[check.mark]
        terminal.result(f"{line}. {check.way_out}".rstrip(), style=style)


class _ParallelChecks:
    """Checks that wait for a service, in parallel. One that does not end in time is abandoned."""

    def __init__(self, checks: Mapping[str, Callable[[], list[Check]]]) -> None:
        self._found: dict[str, list[Check]] = {}
        self._threads = {name: threading.Thread(target=self._run, args=(name, check), daemon=True)
                         for name, check in checks.items()}  # fmt: skip
        for thread in self._threads.values():
            thread.start()

    def _run(self, name: str, check: Callable[[], list[Check]]) -> None:
        self._found[name] = check()

    def answers(self, wait_s: float) -> list[Check]:
        for thread in self._threads.values():
            thread.join(wait_s + 0.5)
        return [
            check
            for name in self._threads
            for check in self._found.get(name, [Check(name, Mark.NOTE, f"no answer within {wait_s:g} s")])
        ]


def _trainer() -> Check:
    name = "trainer environment"
    try:
        python = trainer_environment.find()
    except SweepError as problem:
        return Check(name, Mark.PROBLEM, str(problem).rstrip("."))
    return Check(name, Mark.OK, f"{python.parent.parent}, built from the current lock")


def _store(folder: str | None) -> Check:
    try:
        root = open_store(folder).root
    except SweepError as problem:
        return Check("store", Mark.PROBLEM, str(problem).rstrip("."))
    existing = _existing(root)
    if not os.access(existing, os.W_OK):
        return Check("store", Mark.PROBLEM, f"{existing} cannot be written", "Name another folder: AXOSWEEP_STORE.")
    return Check("store", Mark.OK, f"{root}{'' if existing == root else ', will be created'}")


def _disk(folder: str | None) -> Check:
    try:
        place = _existing(open_store(folder).root)
    except SweepError:
        place = Path.cwd()
    free_gb = shutil.disk_usage(place).free / 1e9
    free = f"{free_gb:.0f} GB free at {place}"
    if free_gb < TOO_LITTLE_GB:
        return Check("disk", Mark.PROBLEM, free, "Free some, or store results elsewhere: AXOSWEEP_STORE.")
    few = Mark.NOTE if free_gb < LITTLE_GB else Mark.OK
    return Check("disk", few, free, "A model of some billion parameters needs more." if few is Mark.NOTE else "")


def _existing(path: Path) -> Path:
    return next(place for place in (path, *path.parents) if place.exists())


def _compiler() -> Check:
    found = next((name for name in (os.environ.get("CC"), "cc", "gcc", "clang") if name and shutil.which(name)), None)
    if found is None:
        return Check("C compiler", Mark.NOTE, "none", "`axosweep setup`, and triton on a GPU, need one.")
    return Check("C compiler", Mark.OK, found)


def _gpus() -> Check:
    if cards := usable_cards(NETWORK_S):
        return Check("GPUs here", Mark.OK, str(len(cards)))
    return Check("GPUs here", Mark.NOTE, "none", "executor=local trains on the CPU; executor=modal rents GPUs.")


def _hub(wait_s: float) -> list[Check]:
    token = hub_commits.has_token()
    has = Check("Hugging Face token", Mark.OK, "there is one") if token else Check(
        "Hugging Face token", Mark.NOTE, "none", "Gated models and datasets need one: `hf auth login`, or HF_TOKEN."
    )  # fmt: skip
    access = hub_commits.look(wait_s)
    if access.refused:
        has = Check("Hugging Face token", Mark.PROBLEM, "the hub refuses it", "Renew it: `hf auth login`.")
    if access.reached:
        return [has, Check("Hugging Face hub", Mark.OK, access.endpoint)]
    way_out = "Names of the hub cannot be resolved now; local paths work."
    return [has, Check("Hugging Face hub", Mark.NOTE, f"{access.endpoint} does not answer ({access.problem})", way_out)]


def _modal(secret: str, wait_s: float) -> list[Check]:
    if not _modal_token():
        return [Check("Modal token", Mark.NOTE, "none", "executor=modal needs one: `modal token new`.")]
    command = [sys.executable, "-P", "-m", "runner.executors.modal_doctor", secret]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=wait_s)
        answer: dict[str, Any] = json.loads(done.stdout)
    except (subprocess.SubprocessError, ValueError):
        answer = {"token": "unreachable", "secret": None}
    match answer["token"]:
        case "ok":
            return [Check("Modal token", Mark.OK, "Modal accepts it"), _secret(secret, answer["secret"])]
        case "refused":
            return [Check("Modal token", Mark.PROBLEM, "Modal refuses it", "Create a new one: `modal token new`.")]
        case _:
            return [Check("Modal token", Mark.NOTE, "there is one; Modal does not answer now")]


def _secret(name: str, there: bool | None) -> Check:
    if there is None:
        return Check("Modal secret", Mark.NOTE, f"it is unknown whether {name} exists")
    if not there:
        way_out = f"modal secret create {name} HUGGINGFACE_TOKEN=hf_... WANDB_API_KEY=..."
        return Check("Modal secret", Mark.NOTE, f"Modal has no {name}", f"executor=modal needs it: {way_out}")
    return Check("Modal secret", Mark.OK, name)


def _modal_token() -> bool:
    """Whether there is one: in the environment, then in the file, as Modal's client looks."""
    if os.environ.get("MODAL_TOKEN_ID") and os.environ.get("MODAL_TOKEN_SECRET"):
        return True
    path = Path(os.environ.get("MODAL_CONFIG_PATH") or "~/.modal.toml").expanduser()
    try:
        profiles = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError):
        return False
    return any(isinstance(one, dict) and one.get("token_id") for one in profiles.values())


def _wandb() -> Check:
    if account.has_key():
        return Check("W&B key", Mark.OK, f"there is one for {account.host()}")
    return Check("W&B key", Mark.NOTE, "none", "tracking=wandb needs one here: `wandb login`, or WANDB_API_KEY.")
