"""The settings of a deployment (conf/executor/modal.yaml), and what is wrong with them. Does not need Modal.

An app's name ends in a hash of everything that decides what it does. So another program is another app, and never
changes what a running sweep does.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields, replace
from typing import Any

from modal_app.cloud.meter import Reservation
from modal_app.process.attention import in_branch
from modal_app.store.problem import Problem
from modal_app.store.sources import HERE, source_digest

LOCK = HERE / "trainer" / "requirements.lock"
PYTHON = "3.12"
"""In the containers of `trainer: lock`."""
UNWRITTEN_PYTHON = "3.12"
"""The Python that no key names: keys are older than a second supported version."""
HOUR_S = 3600
LONGEST_HOURS = 24
"""Modal's limit for one attempt."""

CPU, MEMORY_GIB = 2.0, 16.0
"""Reserved for each GPU of a trainer: for its process and data loaders, and a model that is loaded through host memory.
"""

MOST_MEMORY_GIB = 336
"""Of a container. Modal's page says that a maximum is enforced, and its refusal of a larger request gives this one:
between 128 and 344064 MiB, as several of its users quote it."""

DISK_GIB, MOST_DISK_GIB = 512, 3072
"""Of a container's own disk: without a request, and at most."""
DISK_PER_MEMORY = 20
"""Modal bills a requested disk as memory: 20 GiB as one (modal.com/docs/guide/resources)."""

LONGEST_NAME = 64
"""Modal's limit for the name of a function."""

TRAINERS = ("lock", "image")

AFTER_FUNCTION = "after"
"""The function for follow-up steps; its GPU is bound to the call, like that of `train`."""

_DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")
_PINNED = re.compile(r"^[A-Za-z0-9][\w.-]*(\[[\w.,-]+\])?(==[\w.!+]+| ?@ ?\S+[0-9a-f]{40}\S*)$")
_KERNEL = re.compile(r"^[\w.-]+/[\w.-]+@[\w.-]+$")


@dataclass(frozen=True, slots=True)
class Deployment:
    """The `executor.modal` node, and what else a plan needs to be deployed."""

    app: str
    cache_volume: str
    runs_volume: str
    claims: str
    secret: str
    image: str
    """The base image, by tag or digest."""
    trainer: str = "lock"
    """Where Axolotl comes from: `lock`, the hash-pinned lock that the local trainer has, or `image`, the base image."""
    apt: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    """More Python packages, each pinned; installed without their dependencies."""
    timeout_hours: float = LONGEST_HOURS
    """Of one attempt."""
    cpu: float = CPU
    """Physical cores that a trainer reserves for each of its GPUs."""
    memory_gib: float = MEMORY_GIB
    """Host memory that it reserves for each."""
    reuse: bool = True
    """Whether containers that train take another run after a clean success: as the node allows, then as a plan needs.
    """
    disk_gib: int | None = None
    """Of the own disk of a container that trains, or does a follow-up step. None: what Modal gives without a request.
    """
    gpu_lists: tuple[tuple[str, ...], ...] = ()
    """Lists of alternative GPUs, in Modal's names: there is a function for each."""
    kernels: tuple[str, ...] = ()
    """Kernel repositories of the hub that its trainers load, as `owner/name@revision`: they are in the image."""

    @classmethod
    def from_node(cls, node: Mapping[str, Any]) -> Deployment:
        """The config's node, which has no problems (`settings_problems`)."""
        lists = {key: tuple(map(str, node.get(key) or ())) for key in ("apt", "packages", "kernels")}
        return cls(**{**node, **lists, "kernels": tuple(sorted(set(lists["kernels"])))})

    def wanted_by(
        self,
        *,
        gpu_lists: Iterable[tuple[str, ...]] = (),
        kernels: Iterable[str] = (),
        reuse: bool = False,
        disk_gib: int | None = None,
    ) -> Deployment:
        """The same with what a plan needs. `reuse`: it has more runs than containers. `disk_gib`: of each container.

        A kernel that the config names replaces the branch of the same repository that would be looked up.
        """
        disk_gib = disk_gib or self.disk_gib or 0
        instead = {in_branch(kernel): kernel for kernel in self.kernels}
        wanted = {instead.get(kernel, kernel) for kernel in kernels} | set(self.kernels)
        return replace(
            self,
            kernels=tuple(sorted(wanted)),
            gpu_lists=tuple(sorted(set(gpu_lists))),
            reuse=self.reuse and reuse,
            disk_gib=disk_gib if disk_gib > DISK_GIB else None,
        )

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> Deployment:
        """Read it from JSON, which has lists instead of tuples."""
        gpu_lists = tuple(tuple(gpus) for gpus in raw["gpu_lists"])
        lists = {key: tuple(raw[key]) for key in ("apt", "packages", "kernels")}
        return cls(**{**raw, **lists, "gpu_lists": gpu_lists})

    @property
    def timeout_s(self) -> int:
        """The timeout of one call, at least Modal's shortest."""
        return max(1, round(self.timeout_hours * HOUR_S))

    def reserved(self, cards: int) -> Reservation:
        """What a trainer with so many GPUs reserves."""
        return reserved_by(self, cards)

    @property
    def app_name(self) -> str:
        """The app of exactly this program: its sources, its lock, its image and its names."""
        digest = hashlib.sha256(repr(sorted(asdict(self).items())).encode())
        digest.update(LOCK.read_bytes() + source_digest().encode())
        return f"{self.app}-{digest.hexdigest()[:10]}"


def train_function(gpus: tuple[str, ...]) -> str:
    """The function that trains on these GPUs. Modal binds one GPU to a call; a list is deployed.

    >>> train_function(("H100:2",)), train_function(("H100:2", "A100-80GB:2"))
    ('train', 'train_H100x2_A100-80GBx2')
    """
    name = "train" if len(gpus) < 2 else "_".join(("train", *gpus)).replace(":", "x")  # a dot would name a class
    return name if len(name) <= LONGEST_NAME else f"train_{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def cards(gpu: str) -> int:
    """The number of GPUs that one of Modal's names means.

    >>> cards("H100:2")
    2
    """
    return int(gpu.partition(":")[2] or 1)


def requested(reserved: Reservation) -> dict[str, Any]:
    """A reservation as Modal takes it: memory is in MiB."""
    return {"cpu": reserved.cores, "memory": round(reserved.memory_gib * 1024)}


def reserved_by(deployment: Deployment | None, cards: int) -> Reservation:
    """What a trainer with so many GPUs reserves (on the CPU, as with one); without a deployment, the defaults."""
    cores, memory_gib = (deployment.cpu, deployment.memory_gib) if deployment else (CPU, MEMORY_GIB)
    with_disk = (deployment.disk_gib or 0) / DISK_PER_MEMORY if deployment else 0.0
    return Reservation(cores * max(cards, 1), max(memory_gib * max(cards, 1), with_disk))


def trainer_identity(lock: str, deployment: Deployment | None, python: str = PYTHON) -> str:
    """The part of every key that covers the versions of all that trains: the lock's hash, Python's minor version,
    and what was added.

    `lock` is the hex sha256 of the trainer's lock, which has other packages for another `python`: numpy 2.3 for 3.12,
    2.5 for 3.13. A run on this machine has no deployment. An image that brings its own trainer, and its own Python,
    counts by its digest, whichever registry serves it.
    """
    packages = sorted(deployment.packages) if deployment else []
    if deployment and deployment.trainer == "image":
        return _digest(deployment.image.rpartition("@")[2], *packages)
    parts = [*packages, *([] if python == UNWRITTEN_PYTHON else [f"python {python}"])]
    return _digest(lock, *parts) if parts else lock


def _digest(*lines: str) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def settings_problems(node: Mapping[str, Any]) -> list[Problem]:
    """What is wrong with the `executor.modal` node."""
    known = {one.name: one for one in fields(Deployment) if one.name != "gpu_lists"}
    there = ", ".join(known)
    problems = [
        Problem("executor.modal", "", f"executor.modal has no {key}. It has: {there}.")
        for key in node
        if key not in known
    ]
    problems += [
        Problem(f"executor.modal.{name}", "", f"executor.modal.{name} has no value, and it is needed.")
        for name, one in known.items()
        if one.default is MISSING and not node.get(name)
    ]
    for name in ("apt", "packages", "kernels"):
        if not isinstance(node.get(name, []), list):
            problems.append(_wrong(name, node[name], f"a list. Write executor.modal.{name}=[{node[name]}]."))
    hours = node.get("timeout_hours", LONGEST_HOURS)
    if isinstance(hours, bool) or not isinstance(hours, int | float) or not 0 < hours <= LONGEST_HOURS:
        problems.append(_wrong_value("timeout_hours", hours, f"more than 0, at most {LONGEST_HOURS} (Modal's limit)."))
    for name, default in (("cpu", CPU), ("memory_gib", MEMORY_GIB)):
        value = node.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0.125 <= value < math.inf:
            problems.append(_wrong_value(name, value, "for each GPU, at least 0.125 (Modal's minimum)."))
    disk = node.get("disk_gib")
    if disk is not None and (type(disk) is not int or not DISK_GIB <= disk <= MOST_DISK_GIB):
        expected = f"a whole number from {DISK_GIB} to {MOST_DISK_GIB} (Modal's limits), or null for what a plan needs."
        problems.append(_wrong_value("disk_gib", disk, expected))
    if not isinstance(node.get("reuse", True), bool):
        problems.append(_wrong_value("reuse", node["reuse"], "true or false."))
    return problems or _pinning_problems(node)


def _pinning_problems(node: Mapping[str, Any]) -> list[Problem]:
    """Settings with which two launches of one config could be two programs."""
    trainer, image = node.get("trainer", "lock"), str(node["image"])
    problems = [
        _wrong(
            "packages",
            "",
            f"executor.modal.packages: {package} is not pinned, so two launches could be two programs. Write "
            "NAME==VERSION.",
        )
        for package in node.get("packages", [])
        if not _PINNED.match(str(package))
    ]
    problems += [
        _wrong(
            "kernels",
            "",
            f"executor.modal.kernels: {kernel} is not a kernel of the hub at a revision. Write OWNER/NAME@REVISION.",
        )
        for kernel in node.get("kernels", [])
        if not _KERNEL.match(str(kernel))
    ]
    if trainer not in TRAINERS:
        problems.append(_wrong_value("trainer", trainer, "lock or image."))
    if trainer == "image" and not _DIGEST.search(image):
        sentence = (
            f"executor.modal.trainer=image takes Axolotl from {image}, and a tag can be another image tomorrow, but "
            "every key covers what has trained a run. Name it by digest: executor.modal.image=NAME@sha256:..."
        )
        problems.append(_wrong("trainer", "", sentence))
    if "@" in image and not _DIGEST.search(image):
        problems.append(_wrong("image", image, "a digest is sha256: and 64 hex digits."))
    return problems


def _wrong_value(name: str, value: object, expected: str) -> Problem:
    return _wrong(name, "null" if value is None else str(value) or "''", expected)


def _wrong(name: str, seen: object, expected: str) -> Problem:
    """Without `seen`, `expected` is the whole sentence."""
    return Problem(f"executor.modal.{name}", str(seen), expected)
