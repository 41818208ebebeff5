"""Shape + length + past records -> the duration of a run. Pure.

Seconds are a fixed part (start, load, first step) + steps x seconds per step + evaluations + saves. Records of the same
shape give each part as their median. Records of another shape give tokens per second, scaled by the operations per
token and the cards' peaks. Without records, there are published speeds, for GPUs only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from runner.console.numbers import counted
from runner.cost.types import NOTHING, Length, PastRuns, Phases, Prediction, Range, Shape
from runner.estimate.seeds import FORWARD, OFF, matmul_weights, operations, peak, seed_speed
from runner.memory.disk import SavedBytes
from runner.types import ModelFacts

Facts = Mapping[str, ModelFacts]
"""base_model -> facts about the model."""

ONE_RECORD_OFF, LEAST_OFF = 0.25, 0.10
"""The relative error of a prediction from the same shape: with one record, and at best."""
NEWEST = 20
"""The most matching records that are used, since machines and programs change."""
SAME_MODEL_OFF = 0.35
"""The relative error of a prediction from another batch, length or number of cards."""

# Guesses, for what was not recorded. They matter for short runs only.
BOOT_MODAL = Range(15.0, 60.0, 180.0)
"""The start of a container with its image."""
START = Range(20.0, 45.0, 120.0)
"""Imports, building the trainer, the first step with its kernels."""
LOAD_BYTES_S, SAVE_BYTES_S = 1e9, 0.5e9
SAVE_S = 3.0
CORES_PER_RANK = Range(0.5, 1.0, 2.0)
MEMORY_GIB_PER_RANK = Range(4.0, 8.0, 16.0)
MEMORY_GIB_CPU = Range(1.0, 1.5, 3.0)


def predict(
    shape: Shape, length: Length, past: Sequence[PastRuns], facts: Facts, saved: SavedBytes | None = None
) -> Prediction | str:
    """The prediction, or a sentence that says why there is none. `past`: the newest first. `saved`: what the run
    writes, as far as that is known."""
    if same := [one for one in past if one.shape == shape][:NEWEST]:
        return _from_same(length, same)
    if kin := [one for one in past if _same_model(one.shape, shape)][:NEWEST]:
        return _from_kin(shape, length, kin, facts, SAME_MODEL_OFF, "another shape")
    if others := [one for one in past if _comparable(one.shape, shape, facts)][:NEWEST]:
        return _from_kin(shape, length, others, facts, OFF, "other models or cards")
    return _from_seed(shape, length, facts, saved)


@dataclass(frozen=True, slots=True)
class _Parts:
    """The parts of a run of one shape in seconds, as medians of its records."""

    fixed: float
    token: float
    """Per token of a micro step, on one card."""
    eval_batch: float
    save: float

    @classmethod
    def of(cls, past: Sequence[PastRuns]) -> _Parts:
        evaluated = [one for one in past if one.length.evals and one.length.eval_batches]
        batches = [one.phases.get("eval", 0.0) / (one.length.evals * one.length.eval_batches) for one in evaluated]
        return cls(
            fixed=median(map(_fixed, past)),
            token=median(1 / _tokens_s(one) for one in past),
            eval_batch=median(batches) if batches else 0.0,
            save=_save_seconds(past),
        )

    def seconds(self, length: Length) -> float:
        return self.phases(length).total

    def phases(self, length: Length) -> Phases:
        step = self.token * length.micro_tokens.likely * length.micro_steps
        return Phases(
            start=self.fixed,
            train=max(length.steps - 1, 0) * step,
            eval=self.eval_batch * length.evals * length.eval_batches,
            save=self.save * length.saves,
        )


def _from_same(length: Length, past: Sequence[PastRuns]) -> Prediction:
    parts = _Parts.of(past)
    phases = parts.phases(length)
    likely = phases.total
    off = [one.seconds / parts.seconds(one.length) - 1 for one in past]
    least = max(LEAST_OFF, ONE_RECORD_OFF / len(past) ** 0.5)
    seconds = Range(likely * (1 + min(min(off), -least)), likely, likely * (1 + max(max(off), least)))
    cpu_s = _cpu_seconds_of(length, past)
    if past[0].shape.gpu == "cpu" and cpu_s is not None:  # this time, it may be the machine's only load
        seconds = replace(seconds, low=min(seconds.low, cpu_s))
    return replace(_with_use(past[0].shape, past, seconds, phases, ""), cpu_s=cpu_s)


def _cpu_seconds_of(length: Length, past: Sequence[PastRuns]) -> float | None:
    """The same prediction for processor seconds."""
    timed = [replace(one, seconds=sum(one.cpu.values()), phases=one.cpu) for one in past if one.cpu]
    return _Parts.of(timed).seconds(length) if timed else None


def _save_seconds(past: Sequence[PastRuns]) -> float:
    return median(one.phases.get("save", 0.0) / max(one.length.saves, 1) for one in past)


def _fixed(one: PastRuns) -> float:
    """All seconds except the steps after the first, the evaluations and the saves."""
    return max(0.0, one.seconds - sum(one.phases.get(name, 0.0) for name in ("train", "eval", "save")))


def _step_seconds(one: PastRuns) -> float:
    steps = one.length.steps - (1 if "first" in one.phases else 0)
    return one.phases.get("train", 0.0) / max(steps, 1)


def _from_kin(
    shape: Shape, length: Length, past: Sequence[PastRuns], facts: Facts, off: float, what: str
) -> Prediction | str:
    speed = median(_tokens_s(one) * _ratio(one.shape, shape, facts) for one in past)
    if speed <= 0:
        return "similar records have no speed"
    step = length.micro_tokens.likely * length.micro_steps / speed
    per_token = 1 / speed * FORWARD / operations(shape)
    phases = Phases(
        start=median(map(_fixed, past)),
        train=(length.steps - 1) * step,
        eval=length.evals * length.eval_tokens * per_token,
        save=_save_seconds(past) * length.saves,
    )
    return _with_use(shape, past, Range.about(phases.total, off), phases, f" of {what}")


def _tokens_s(one: PastRuns) -> float:
    """Tokens per second of one card."""
    return one.length.micro_tokens.likely * one.length.micro_steps / max(_step_seconds(one), 1e-6)


def _ratio(there: Shape, here: Shape, facts: Facts) -> float:
    """How many times faster a token is here than there, from the operations and the cards' peaks."""
    ratio = operations(there) / operations(here)
    if there.base_model != here.base_model:
        ratio *= matmul_weights(facts[there.base_model]) / matmul_weights(facts[here.base_model])
    if there.gpu != here.gpu:
        ratio *= (peak(here.gpu) or 1.0) / (peak(there.gpu) or 1.0)
    return ratio


def _same_model(one: Shape, other: Shape) -> bool:
    """Whether both are the same model and adapter on the same kind of card; batches, their length and the number of
    cards may differ."""
    if one.gpu == "cpu" and one.place != other.place:
        return False
    return (one.base_model, one.adapter, one.bits, one.gpu) == (other.base_model, other.adapter, other.bits, other.gpu)


def _comparable(one: Shape, other: Shape, facts: Facts) -> bool:
    """Whether the speed of one can be scaled to the other: the facts of both models and cards are known, and none is a
    CPU."""
    if peak(one.gpu) is None or peak(other.gpu) is None:
        return False
    models = one.base_model == other.base_model or {one.base_model, other.base_model} <= facts.keys()
    return models and (one.adapter == "none", one.bits < 16) == (other.adapter == "none", other.bits < 16)


def _from_seed(shape: Shape, length: Length, facts: Facts, saved: SavedBytes | None) -> Prediction | str:
    known = facts.get(shape.base_model)
    found = seed_speed(shape, known, length.micro_tokens.likely)
    if isinstance(found, str) or known is None:
        return str(found)
    speed, source = found
    step = length.micro_tokens.scaled(length.micro_steps / speed)
    step = Range(min(step.low, step.likely * (1 - OFF)), step.likely, max(step.high, step.likely * (1 + OFF)))
    evaluating = Range.about(length.evals * length.eval_tokens / speed * FORWARD / operations(shape), OFF)
    weights = known.parameters * (shape.bits / 8)
    trained = known.parameters * 8 if shape.adapter == "none" else 0
    saved = saved or SavedBytes(model=trained, checkpoint=trained)
    save_s, last_s = (SAVE_S + size / SAVE_BYTES_S for size in (saved.checkpoint, saved.model))
    saving = Range.about(max(length.saves - 1, 0) * save_s + last_s, OFF)
    start = START + Range.about(weights / LOAD_BYTES_S, OFF)
    training = step.scaled(length.steps)
    return Prediction(
        seconds=start + training + evaluating + saving,
        phases=Phases(start.likely, training.likely, evaluating.likely, saving.likely),
        boot=BOOT_MODAL if shape.place == "modal" else NOTHING,
        cores=CORES_PER_RANK.scaled(shape.count),
        memory_gib=MEMORY_GIB_PER_RANK.scaled(shape.count),
        basis=f"a published speed ({source})",
        save_s=save_s,
    )


def _with_use(shape: Shape, past: Sequence[PastRuns], seconds: Range, phases: Phases, what: str) -> Prediction:
    """The prediction, with the cores and memory that records with the same number of cards have used."""
    alike = [one for one in past if one.shape.count == shape.count]
    boot = BOOT_MODAL if shape.place == "modal" else NOTHING
    memory = MEMORY_GIB_CPU if shape.gpu == "cpu" else MEMORY_GIB_PER_RANK
    return Prediction(
        seconds=seconds,
        phases=phases,
        boot=_recorded(past, lambda one: one.boot, boot) if shape.place == "modal" else NOTHING,
        around=_recorded(past, lambda one: one.around, NOTHING) if shape.place == "modal" else NOTHING,
        cores=_recorded(alike, lambda one: one.cores, CORES_PER_RANK.scaled(shape.count)),
        memory_gib=_recorded(alike, lambda one: one.memory_gib, memory.scaled(shape.count)),
        basis=f"{counted(len(past), 'record')}{what}",
        save_s=_save_seconds(past),
    )


def _recorded(past: Sequence[PastRuns], of: Callable[[PastRuns], float | None], otherwise: Range) -> Range:
    known = [value for one in past if (value := of(one)) is not None]
    if not known:
        return otherwise
    likely = median(known)
    return Range(min(*known, likely * (1 - LEAST_OFF)), likely, max(*known, likely * (1 + LEAST_OFF)))
