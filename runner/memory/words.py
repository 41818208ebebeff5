"""An estimate in words, in GiB: for `plan`, for a finding, for the reason of a choice."""

from __future__ import annotations

from runner.memory.estimate import Estimate, Evidence, MeasuredPeak, Parts
from runner.memory.weights import GIB

SHOWN_PARTS = 4
SMALLEST_SHARE = 0.01


def in_words(estimate: Estimate) -> str:
    """`FITS: 31 GiB of 78 GiB (weights 15, logits 12, ...), 8 x 4096 tokens (sequence_len)`."""
    if estimate.measured is not None:
        figures = _measured(estimate, estimate.measured)
    elif estimate.parts is None:
        return f"{estimate.verdict}: {estimate.reason}"
    else:
        figures = f"{gib(estimate.parts.total)} GiB of {gib(estimate.usable)} GiB ({parts_in_words(estimate.parts)})"
    rest = [f"{estimate.tokens}{_when(estimate)}"] if estimate.tokens else []
    if estimate.host:
        rest.append(f"{gib(estimate.host)} GiB of the machine's memory")
    return f"{estimate.verdict}: {', '.join([figures, *rest, *estimate.notes])}"


def _measured(estimate: Estimate, measured: MeasuredPeak) -> str:
    """`17 GiB of 22 GiB, measured in run 3f2a91bc (estimated: 21 GiB: weights 15, ...)`."""
    run, card = f"run {measured.run}", f" on {measured.gpu}" if measured.gpu != estimate.gpu.name else ""
    size = "" if measured.bytes is None else f"{gib(measured.bytes)} GiB of {gib(estimate.usable)} GiB"
    used = "" if measured.peak is None else f"the {gib(measured.peak)} GiB of "
    match measured.evidence:
        case Evidence.MEASURED:
            words = f"{size}, measured in {run}{card}"
        case Evidence.SCALED:
            words = f"{size}, scaled from {used}{run}{card} with {measured.tokens}"
        case Evidence.HAD_MORE:
            words = f"{size}{', since ' if size else ''}{run} has trained on {measured.gpu} with {measured.tokens}"
        case Evidence.RAN_OUT:
            words = f"{run} ran out of memory on {measured.gpu} with {measured.tokens}"
        case Evidence.AT_LEAST:
            end = f"used {gib(measured.peak)} GiB" if measured.peak is not None else "ran out of memory"
            words = f"{size} at least, since {run} {end} on {measured.gpu} with {measured.tokens}"
    if estimate.parts is None:
        return words
    return f"{words} (estimated: {gib(estimate.parts.total)} GiB: {parts_in_words(estimate.parts)})"


def where(estimate: Estimate) -> str:
    """`1 x a100_80gb`."""
    return f"{estimate.count} x {estimate.gpu.name}"


def parts_in_words(parts: Parts) -> str:
    """The largest parts, by name."""
    shown = [(name, size) for name, size in parts.largest_first() if size >= SMALLEST_SHARE * parts.total]
    words = [f"{name} {gib(size)}" for name, size in shown[:SHOWN_PARTS]]
    return ", ".join([*words, "..."] if len(parts.largest_first()) > len(words) else words)


def gib(size: float) -> str:
    """Whole GiB from ten on, tenths below.

    >>> gib(168.4 * 2**30), gib(0.55 * 2**30)
    ('168', '0.6')
    """
    return f"{size / GIB:.0f}" if size >= 9.95 * GIB else f"{size / GIB:.1f}"


def _when(estimate: Estimate) -> str:
    return {"evaluation": " in evaluation", "loading": " while the model loads"}.get(estimate.moment, "")
