"""The GPUs that conf/gpu names: what Modal calls them, how many a container has, what they can do."""

from __future__ import annotations

from dataclasses import dataclass

from runner.errors import SweepError, did_you_mean


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
    """What torch can be planned on, in 2^30 bytes; for other cards than the 80 GB ones a cautious guess."""
    compute_capability: str
    """NVIDIA's, as Axolotl writes it: `sm_80`."""
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
# sheets (memory). RTX PRO 6000's count per container is not confirmed.
GPUS = {
    kind.name: kind
    for kind in (
        GpuKind("t4", "T4", 16, 14.5, "sm_75"),
        GpuKind("l4", "L4", 24, 22, "sm_89"),
        GpuKind("a10", "A10", 24, 22, "sm_86", most=4),
        GpuKind("l40s", "L40S", 48, 44, "sm_89"),
        GpuKind("a100_40gb", "A100-40GB", 40, 39, "sm_80"),
        GpuKind("a100_80gb", "A100-80GB", 80, 78, "sm_80"),
        GpuKind("rtx_pro_6000", "RTX-PRO-6000", 96, 90, "sm_120"),
        GpuKind("h100", "H100", 80, 78, "sm_90"),
        GpuKind("h200", "H200", 141, 138, "sm_90"),
        GpuKind("b200", "B200", 180, 165, "sm_100"),
    )
}


def gpu_kind(name: str) -> GpuKind:
    """Raises SweepError for a name that no card has."""
    if name not in GPUS:
        raise SweepError(f"gpu={name}: there is no such GPU.{did_you_mean(name, GPUS)} There are: {', '.join(GPUS)}.")
    return GPUS[name]


def modal_gpu(name: str, count: int) -> str:
    """Modal's text for `count` cards in one container. Raises SweepError for what Modal does not have.

    >>> modal_gpu("a100_80gb", 4)
    'A100-80GB:4'
    """
    kind = gpu_kind(name)
    if count > kind.most:
        raise SweepError(
            f"gpu={name} gpu.count={count}: a container has at most {kind.most} of them; "
            "several machines are not there yet."
        )
    return f"{kind.modal}:{count}"
