"""What runs have shown of their GPUs' memory, in place of an estimate for the same or nearly the same run. Pure.

docs/memory.md says how, docs/memory-evidence.md how well.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from runner.config.gpus import GPUS
from runner.memory.config import batches_of, fills_rows
from runner.memory.estimate import Estimate, Evidence, MeasuredPeak, Verdict, estimate, verdict_of
from runner.memory.stack import Batch
from runner.memory.weights import GIB
from runner.types import ModelFacts

Config = Mapping[str, Any]

SAME_FACTOR = 1.05
"""A run that is the same but for its card may need so many times what was measured. A guess: the allocator uses
one card a little better than another."""
NEAR_FACTOR = 1.10
"""The same for a run with at most NEAR times the tokens, or 1 / NEAR of them. Of 22 published pairs of such runs, the
worst needed 7.9% more than what follows from the other one (docs/memory-evidence.md)."""
NEAR = 2.0
"""Beyond that, what follows from another run was no better than the estimate."""
USED_SHARE = 0.8
"""What a run needs at least of what the card showed, where torch has not said it: the rest may be memory that the
allocator keeps but could give back. A guess."""

NO_EFFECT = frozenset(
    """
    base_model datasets test_datasets val_set_size dataset_prepared_path shuffle_merged_datasets dataset_processes seed
    learning_rate lr_scheduler lr_scheduler_kwargs cosine_min_lr_ratio cosine_constant_lr_ratio warmup_ratio
    warmup_steps weight_decay adam_beta1 adam_beta2 adam_epsilon max_grad_norm lora_alpha loraplus_lr_ratio
    num_epochs max_steps output_dir logging_steps train_on_inputs save_steps saves_per_epoch save_strategy
    save_total_limit save_only_model save_first_step eval_steps evals_per_epoch eval_strategy load_best_model_at_end
    metric_for_best_model greater_is_better early_stopping_patience loss_watchdog_threshold loss_watchdog_patience
    """.split()
)
"""Keys that a run's memory does not depend on, given its model, and whether it evaluates."""
OF_EVALUATION = frozenset(("val_set_size", "test_datasets"))
"""Those of NO_EFFECT that say whether a run evaluates."""
OF_BATCHES = frozenset(
    "micro_batch_size gradient_accumulation_steps eval_batch_size sequence_len eval_sequence_len".split()
)
"""Keys that only say how much is processed at a time."""


@dataclass(frozen=True, slots=True)
class Work:
    """How much a GPU processes at a time."""

    training: Batch
    evaluation: Batch | None

    @classmethod
    def of(cls, config: Config, longest_row: int | None) -> Self:
        _, training, evaluation = batches_of(config, longest_row)
        return cls(training, evaluation)

    def covers(self, other: Work) -> bool:
        """Whether this is as much in each respect, or more."""
        if (self.evaluation is None) != (other.evaluation is None):
            return False
        pairs = [(self.training, other.training)]
        if self.evaluation is not None and other.evaluation is not None:
            pairs.append((self.evaluation, other.evaluation))
        return all(mine.rows >= its.rows and mine.length >= its.length for mine, its in pairs)

    def distance(self, other: Work) -> float:
        """How many times more or fewer tokens; 1 for as many."""
        pairs = [(self.training.tokens, other.training.tokens)]
        if self.evaluation is not None and other.evaluation is not None:
            pairs.append((self.evaluation.tokens, other.evaluation.tokens))
        return max(max(mine / its, its / mine) for mine, its in pairs)

    def __str__(self) -> str:
        return f"{self.training.rows} x {self.training.length} tokens"


@dataclass(frozen=True, slots=True)
class RunMemory:
    """A run on GPUs that has ended."""

    run: str
    """Its key."""
    config: Config
    """Axolotl's, with DeepSpeed's settings in it."""
    gpu: str
    """The card that it had."""
    count: int
    longest_row: int | None
    """Tokens of its dataset's longest row."""
    succeeded: bool
    out_of_memory: bool
    """Whether a GPU's memory was too small for it."""
    peak: int | None = None
    """The most bytes that one GPU showed as used."""
    used: int | None = None
    """The most bytes that torch had in use at once, and CUDA's own; None if torch has not said it."""

    @property
    def saw_every_length(self) -> bool:
        """Whether it came to its longest rows: it succeeded, and its rows are equally long, or it read all of them."""
        return self.succeeded and (fills_rows(self.config) or not _is_cut_short(self.config))

    @property
    def speaks(self) -> bool:
        """Whether anything follows from it."""
        known = fills_rows(self.config) or self.longest_row is not None
        return self.gpu in GPUS and known and (self.out_of_memory or self.succeeded or self.peak is not None)

    @property
    def work(self) -> Work:
        return Work.of(self.config, self.longest_row)

    @property
    def usable(self) -> int:
        return int(GPUS[self.gpu].usable_gib * GIB)


@dataclass(frozen=True, eq=False)
class KnownMemory:
    """The runs of one model by how they train, the newest first."""

    by_method: Mapping[str, tuple[RunMemory, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, runs: Iterable[RunMemory]) -> Self:
        found: dict[str, list[RunMemory]] = {}
        for one in runs:
            if one.speaks:
                found.setdefault(method_of(one.config, one.count), []).append(one)
        return cls({method: tuple(ones) for method, ones in found.items()})

    def corrected(
        self, one: Estimate, config: Config, facts: ModelFacts | None, longest_row: int | None = None
    ) -> Estimate:
        """An estimate, or what runs have shown instead."""
        if not self.by_method or not (similar := self.by_method.get(method_of(config, one.count))):
            return one
        question = _Question(one, config, facts, Work.of(config, longest_row))
        for answer in (_from_success, _from_failure, _from_peak, _from_lower_bound):
            if (found := answer(question, similar)) is not None:
                return found
        return one


NOTHING_KNOWN = KnownMemory()


def method_of(config: Config, count: int) -> str:
    """What two runs share if they differ in how much they process at a time, and in nothing else that needs memory."""
    steps = config.get("gradient_accumulation_steps") or 1
    method = {
        **{key: value for key, value in config.items() if key not in NO_EFFECT | OF_BATCHES and value is not None},
        "lora_dropout": bool(config.get("lora_dropout")),
        "evaluates": Work.of(config, None).evaluation is not None,
        "accumulates": isinstance(steps, int) and steps > 1,
        "count": count,
    }
    return json.dumps(method, sort_keys=True, default=str)


@dataclass(frozen=True, slots=True)
class _Question:
    estimate: Estimate
    config: Config
    facts: ModelFacts | None
    work: Work

    def ratio(self, run: RunMemory) -> float | None:
        """This run's estimate divided by that of an earlier run; None if they are not estimated."""
        if self.estimate.parts is None or self.facts is None:
            return None
        its = estimate(run.config, self.facts, GPUS[run.gpu], run.count, run.longest_row).parts
        return self.estimate.parts.total / its.total if its else None

    def order(self, run: RunMemory) -> tuple[bool, float, bool]:
        """The same run first, then the nearest, and on the same card."""
        work = run.work
        return work != self.work, work.distance(self.work), run.gpu != self.estimate.gpu.name

    def answer(
        self, verdict: Verdict, evidence: Evidence, run: RunMemory, peak: int | None, size: int | None
    ) -> Estimate:
        measured = MeasuredPeak(evidence, run.run, run.gpu, str(run.work), peak, size)
        return replace(self.estimate, verdict=verdict, measured=measured)


def _from_success(question: _Question, similar: tuple[RunMemory, ...]) -> Estimate | None:
    """FITS: a run that needs as much or more has succeeded on such a card, or on a smaller one."""
    usable = question.estimate.usable
    more = [one for one in similar if one.saw_every_length and one.usable <= usable
            and one.work.covers(question.work)]  # fmt: skip
    if not more:
        return None
    nearest = min(more, key=lambda one: (one.peak is None, one.work.distance(question.work)))
    same = question.work == nearest.work
    ratio = 1.0 if same else question.ratio(nearest)
    size = None if nearest.peak is None or ratio is None else int(nearest.peak * ratio)
    evidence = Evidence.MEASURED if same and size is not None else Evidence.HAD_MORE
    return question.answer(Verdict.FITS, evidence, nearest, nearest.peak, size)


def _from_failure(question: _Question, similar: tuple[RunMemory, ...]) -> Estimate | None:
    """WON'T FIT: a run that needs as little or less has run out of memory on such a card, or on a larger one."""
    usable = question.estimate.usable
    failed = [one for one in similar if one.out_of_memory and one.usable >= usable
              and question.work.covers(one.work)]  # fmt: skip
    if not failed:
        return None
    nearest = min(failed, key=lambda one: one.work.distance(question.work))
    return question.answer(Verdict.WONT_FIT, Evidence.RAN_OUT, nearest, None, None)


def _from_peak(question: _Question, similar: tuple[RunMemory, ...]) -> Estimate | None:
    """The verdict that follows from the peak of a run that is the same, or nearly."""
    near = [one for one in similar if one.saw_every_length and one.peak is not None
            and one.work.distance(question.work) <= NEAR]  # fmt: skip
    for run in sorted(near, key=question.order):
        assert run.peak is not None
        same = run.work == question.work
        ratio = 1.0 if same else question.ratio(run)
        if ratio is None:
            continue
        factor = SAME_FACTOR if same else NEAR_FACTOR
        most, least = run.peak * ratio, (run.used or run.peak * USED_SHARE) * ratio
        if most * factor <= question.estimate.usable:
            verdict = Verdict.FITS
        else:
            verdict = Verdict.WONT_FIT if least / factor > question.estimate.usable else Verdict.UNSURE
        return question.answer(verdict, Evidence.MEASURED if same else Evidence.SCALED, run, run.peak, int(most))
    return None


def _from_lower_bound(question: _Question, similar: tuple[RunMemory, ...]) -> Estimate | None:
    """The verdict that follows from a run that did not come to its end, if it needed more than is estimated."""
    bounds: list[tuple[int, RunMemory]] = []
    for run in similar:
        least = run.usable if run.out_of_memory else int((run.used or 0) or (run.peak or 0) * USED_SHARE)
        near = run.work.distance(question.work) <= NEAR
        if near and not run.saw_every_length and (ratio := question.ratio(run)) is not None:
            bounds.append((int(least * ratio), run))
    estimated = question.estimate.parts.total if question.estimate.parts else 0
    if not (bounds := [one for one in bounds if one[0] > estimated]):
        return None
    most, run = max(bounds, key=lambda one: one[0])
    sharded = run.count > 1 and bool(run.config.get("deepspeed") or run.config.get("fsdp_config"))
    verdict = verdict_of(most, question.estimate.gpu, sharded=sharded)
    return question.answer(verdict, Evidence.AT_LEAST, run, None if run.out_of_memory else run.peak, most)


def _is_cut_short(config: Config) -> bool:
    """Whether a run may end before it has read all of its rows."""
    epochs = config.get("num_epochs")
    return bool(config.get("max_steps") or config.get("early_stopping_patience")) or (
        isinstance(epochs, int | float) and epochs < 1
    )
