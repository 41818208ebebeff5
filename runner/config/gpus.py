"""The GPUs that conf/gpu names: what Modal calls them, how many a container has, what they can do."""

from __future__ import annotations

import re
from dataclasses import dataclass

from modal_app.store.problem import Problem
from runner.errors import SweepError, did_you_mean
from runner.types import Gpu


@dataclass(frozen=True, slots=True)
class GpuKind:
    """One kind of card. Prices are not here: they change, and conf/prices dates them."""

    name: str
    """In conf/gpu."""
    modal: str
    """Modal's name for it. The client accepts any text, so only these are sent."""
    memory_gb: int
    """As sold, in 10^9 bytes."""
    usable_gib: float
    """What torch can use, in 2^30 bytes; a cautious guess except for the 80 GB cards."""
    compute_capability: str
    """NVIDIA's, as Axolotl writes it: `sm_80`."""
    driver: str
    """A regular expression for complete words in its name in nvidia-smi."""
    rate: str
    """How Modal's billing rates name it: `gpu_hour_cost_<rate>`."""
    most: int = 8
    """Cards per container on Modal."""

    @property
    def bf16(self) -> bool:
        """Ampere and newer (compute capability 8.0)."""
        return self._capability >= 80

    @property
    def fp8(self) -> bool:
        """Ada, Hopper and newer (compute capability 8.9)."""
        return self._capability >= 89

    @property
    def _capability(self) -> int:
        return int(self.compute_capability.removeprefix("sm_"))


# Sources: modal.com/docs/guide/gpu (names, cards per container), NVIDIA's CUDA GPU list (compute capability) and data
# sheets (memory), `modal billing rates --json` (rates). RTX PRO 6000's count per container is not confirmed.
GPUS = {
    kind.name: kind
    for kind in (
        GpuKind("t4", "T4", 16, 14.5, "sm_75", "T4", "t4"),
        GpuKind("l4", "L4", 24, 22, "sm_89", "L4", "l4"),
        GpuKind("a10", "A10", 24, 22, "sm_86", "A10G?", "a10g", most=4),
        GpuKind("l40s", "L40S", 48, 44, "sm_89", "L40S", "l40s"),
        GpuKind("a100_40gb", "A100-40GB", 40, 39, "sm_80", "A100.*40GB", "a100_40gb"),
        GpuKind("a100_80gb", "A100-80GB", 80, 78, "sm_80", "A100.*80GB", "a100_80gb"),
        GpuKind("rtx_pro_6000", "RTX-PRO-6000", 96, 90, "sm_120", "RTX PRO 6000", "rtx6000"),
        GpuKind("h100", "H100", 80, 78, "sm_90", "H100", "h100"),
        GpuKind("h200", "H200", 141, 138, "sm_90", "H200", "h200"),
        GpuKind("b200", "B200", 180, 165, "sm_100", "B200", "b200"),
    )
}


def gpu_kind(name: str) -> GpuKind:
    """Raises SweepError for a name that no card has."""
    if name not in GPUS:
        raise SweepError(_no_such(name))
    return GPUS[name]


def kind_of_card(driver_name: str) -> GpuKind | None:
    """The kind of a card by the name that NVIDIA's driver gives it; None for a card that is not in GPUS.

    >>> kind_of_card("NVIDIA A100-SXM4-80GB").name
    'a100_80gb'
    """
    return next((kind for kind in GPUS.values() if re.search(rf"\b(?:{kind.driver})\b", driver_name)), None)


def modal_gpu(name: str, count: int) -> str:
    """Modal's text for `count` cards in one container. Raises SweepError for what Modal does not have.

    >>> modal_gpu("a100_80gb", 4)
    'A100-80GB:4'
    """
    kind = gpu_kind(name)
    if count > kind.most:
        raise SweepError(_too_many(kind, count))
    return f"{kind.modal}:{count}"


def modal_gpus(gpu: Gpu) -> tuple[str, ...]:
    """Modal's texts for what a run may train on, best first; none for the CPU.

    >>> modal_gpus(Gpu("h100", 2, fallback=("h100", "a100_80gb")))
    ('H100:2', 'A100-80GB:2')
    """
    if gpu.type == "cpu":
        return ()
    return tuple(modal_gpu(name, gpu.count) for name in dict.fromkeys((gpu.type, *gpu.fallback)))


def gpu_problems(gpu: Gpu, executor: str) -> list[Problem]:
    """What is wrong with the GPUs that a run names."""
    names = () if gpu.type == "cpu" else (gpu.type,)
    problems = [_no_such(name) for name in names if name not in GPUS]
    problems += [
        _of_fallback(f"there is no GPU {name}.{did_you_mean(str(name), GPUS)} There are: {', '.join(GPUS)}.")
        for name in dict.fromkeys(gpu.fallback)
        if name not in GPUS
    ]
    if gpu.fallback and gpu.type == "cpu":
        problem = "a run on the CPU needs no other GPU. Choose a GPU (gpu=h100), or leave it out."
        problems.append(_of_fallback(problem))
    elif gpu.fallback and executor != "modal":
        problem = f"executor={executor} trains on the GPUs of this machine. It is for executor=modal."
        problems.append(_of_fallback(problem))
    if executor == "modal":
        wanted = [GPUS[name] for name in dict.fromkeys((*names, *gpu.fallback)) if name in GPUS]
        problems += [_too_many(kind, gpu.count) for kind in wanted if gpu.count > kind.most]
    return problems


def _of_fallback(expected: str) -> Problem:
    return Problem("gpu.fallback", "", f"gpu.fallback: {expected}")


def _no_such(name: str) -> Problem:
    expected = f"there is no such GPU.{did_you_mean(str(name), GPUS)} There are: {', '.join(GPUS)}."
    return Problem("gpu", str(name), expected)


def _too_many(kind: GpuKind, count: int) -> Problem:
    expected = f"a container has at most {kind.most} of them; several machines are not supported yet."
    return Problem("gpu", f"{kind.name} gpu.count={count}", expected)
