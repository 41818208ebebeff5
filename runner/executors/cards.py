"""The GPUs of this machine: which of them a launch may use, and which are used by runs of other launches.

A launch locks the cards that it chooses for a run, and the run's worker keeps the locks until it ends. So a card is
taken before its worker has begun. Which steps are at work tells of processes that have no lock: ranks whose worker was
killed, and runs in another container.
"""

from __future__ import annotations

import functools
import itertools
import os
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from modal_app.process import threads
from modal_app.store.claim import holder, this_process
from modal_app.store.flock import lock, try_lock
from modal_app.store.layout import StepFolder, Store
from modal_app.store.read_json import read_json
from modal_app.store.step import FOLLOW_UP_KINDS, Device, Step
from modal_app.warm.address import NoPrivatePlace, machine_folder

VISIBLE = "CUDA_VISIBLE_DEVICES"
ANSWER_WITHIN_S = 30.0
"""A driver that is broken may never answer."""


def usable_cards(within_s: float = ANSWER_WITHIN_S) -> tuple[str, ...]:
    """The cards that this process may use, by the names that CUDA_VISIBLE_DEVICES takes: those that it names already,
    as CUDA reads it, otherwise all."""
    program, named = shutil.which("nvidia-smi"), os.environ.get(VISIBLE)
    every = tuple(map(str, range(len(_ids(program, within_s))))) if program else ()
    if not every or named is None:
        return every
    names = (name.strip() for name in named.split(","))
    return tuple(itertools.takewhile(lambda name: name in every or name.startswith(("GPU-", "MIG-")), names))


@functools.cache
def _ids(nvidia_smi: str, within_s: float) -> tuple[str, ...]:
    """The unique ids of the cards that it lists, in order; cached, since it may take a second."""
    try:
        done = subprocess.run([nvidia_smi, "-L"], capture_output=True, text=True, check=True, timeout=within_s)
    except (OSError, subprocess.SubprocessError):
        return ()
    cards = (line for line in done.stdout.splitlines() if line.startswith("GPU "))
    return tuple(line.partition("UUID: ")[2].rstrip(") ") for line in cards)


def _id(card: str) -> str:
    """What no other card is called. A number may be another card in another container, or in another batch job."""
    program = shutil.which("nvidia-smi")
    ids = _ids(program, ANSWER_WITHIN_S) if program else ()
    known = ids[int(card)] if card.isdecimal() and int(card) < len(ids) else ""
    return known or next((one for one in ids if one.startswith(card)), card)


def card_locks(store: Store) -> Path:
    """The folder of the locks of this machine's cards: the user's, or the store's if the user has none."""
    try:
        return machine_folder() / "cards"
    except NoPrivatePlace:
        return store.cache / "cards"


def lock_cards(folder: Path, cards: Iterable[str], count: int) -> dict[str, int]:
    """Lock so many of these cards: card -> the descriptor of its lock. Empty if not enough of them are free.

    A lock lasts until every process has ended, or closed it, that has the descriptor or a copy. Launches choose one
    after the other: otherwise, two that need two cards each could get one each.
    """
    folder.mkdir(parents=True, exist_ok=True)
    locked: dict[str, int] = {}
    with (folder / "choosing").open("w") as choosing:
        lock(choosing.fileno())
        for card in cards:
            descriptor = os.open(folder / _id(card).replace("/", "-"), os.O_RDWR | os.O_CREAT, 0o600)
            if len(locked) < count and try_lock(descriptor):
                locked[card] = descriptor
            else:
                os.close(descriptor)
        if len(locked) < count:
            release(locked)
    return locked


def release(locked: dict[str, int]) -> None:
    while locked:
        os.close(locked.popitem()[1])


def cards_in_use(store: Store) -> set[str]:
    """The cards of the steps that processes on this machine work on now, whichever launch has started them."""
    boot_id, found = this_process("").boot_id, set[str]()
    of_steps = ("*/lock", *(f"*/{kind}/*/lock" for kind in FOLLOW_UP_KINDS))
    for path in itertools.chain.from_iterable(map(store.runs.glob, of_steps)):
        folder = StepFolder(path.parent, done=path.parent / "result.json")
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
