"""The GPUs of this machine: which of them a launch may use, and which are used by runs of other launches."""

from __future__ import annotations

import functools
import itertools
import os
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import replace

from modal_app.process import threads
from modal_app.store.claim import holder, this_process
from modal_app.store.layout import StepFolder, Store
from modal_app.store.read_json import read_json
from modal_app.store.step import FOLLOW_UP_KINDS, Device, Step

VISIBLE = "CUDA_VISIBLE_DEVICES"
ANSWER_WITHIN_S = 30.0
"""A driver that is broken may never answer."""


def usable_cards(within_s: float = ANSWER_WITHIN_S) -> tuple[str, ...]:
    """The cards that this process may use, by the names that CUDA_VISIBLE_DEVICES takes: those that it names already,
    as CUDA reads it, otherwise all."""
    program, named = shutil.which("nvidia-smi"), os.environ.get(VISIBLE)
    every = tuple(map(str, range(_count(program, within_s)))) if program else ()
    if not every or named is None:
        return every
    names = (name.strip() for name in named.split(","))
    return tuple(itertools.takewhile(lambda name: name in every or name.startswith(("GPU-", "MIG-")), names))


@functools.cache
def _count(nvidia_smi: str, within_s: float) -> int:
    """How many cards it lists; cached, since it may take a second."""
    try:
        done = subprocess.run([nvidia_smi, "-L"], capture_output=True, text=True, check=True, timeout=within_s)
    except (OSError, subprocess.SubprocessError):
        return 0
    return sum(line.startswith("GPU ") for line in done.stdout.splitlines())


def cards_in_use(store: Store) -> set[str]:
    """The cards of the steps that processes on this machine work on now, whichever launch has started them."""
    boot_id, found = this_process("").boot_id, set[str]()
    of_steps = ("*/lock", *(f"*/{kind}/*/lock" for kind in FOLLOW_UP_KINDS))
    for lock in itertools.chain.from_iterable(map(store.runs.glob, of_steps)):
        folder = StepFolder(lock.parent, done=lock.parent / "result.json")
        owner = holder(folder)
        if owner is not None and owner.boot_id in (None, boot_id) and (attempts := folder.attempts()):
            environment = read_json(attempts[-1].step, lenient=True).get("environment") or {}
            found.update(filter(None, environment.get(VISIBLE, "").split(",")))
    return found


def on_cards(step: Step, cards: Iterable[str], total: int) -> Step:
    """The step with its cards, of so many in all. Each card has its part of this machine's cores: runs on the other
    cards need theirs."""
    shared = threads.for_ranks(Device.CUDA, total, threads.usable_cores())
    return replace(step, environment={**threads.unless_set(shared), **step.environment, VISIBLE: ",".join(cards)})
