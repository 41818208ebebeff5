"""Rules about batches in reinforcement learning: answers that are compared have to be in the same batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from runner.config.numbers import number
from runner.preflight.findings import Finding, error
from runner.preflight.rules.run_facts import RunFacts

GRPO_CONFIG = "https://huggingface.co/docs/trl/grpo_trainer#trl.GRPOConfig"
KTO = "https://huggingface.co/docs/trl/kto_trainer#batch-size-recommendations"
DEFAULT = 8
"""TRL's num_generations."""


def groups_that_do_not_fill_the_batch(run: RunFacts) -> Iterator[Finding]:
    """A batch of generations has to consist of whole groups of num_generations (8 if it is not set)."""
    if not _groups(run) or (run.axolotl.get("rl") == "grpo" and _trl(run).get("num_generations") is not None):
        return  # Axolotl's schema checks a given number for GRPO
    group, processes = _group(run), run.experiment.gpu.count
    given = number(_trl(run).get("generation_batch_size"))
    micro = run.number("micro_batch_size") or 1
    accumulated = run.number("gradient_accumulation_steps") or (run.number("batch_size") or micro) // micro
    batch = given or micro * accumulated * processes
    if batch % group:
        what = "trl.generation_batch_size" if given else "micro_batch_size x gradient_accumulation_steps x processes"
        yield error(
            "trl.num_generations",
            _trl(run).get("num_generations"),
            f"{batch:g} generations at a time ({what}) are not a multiple of the {group:g} of a group, and TRL "
            "refuses that once the model is loaded",
            f"Set trl.num_generations={_divisor(int(batch), int(group))}, or gradient_accumulation_steps={int(group)}.",
            GRPO_CONFIG,
        )


def groups_that_do_not_fill_an_evaluation(run: RunFacts) -> Iterator[Finding]:
    """An evaluation takes eval_batch_size x processes generations at a time, which have to be whole groups, too."""
    if not _groups(run) or not run.evaluates:
        return
    group, key = _group(run), "eval_batch_size" if run.axolotl.get("eval_batch_size") else "micro_batch_size"
    batch = (run.number(key) or 1) * run.experiment.gpu.count
    if batch % group:
        yield error(
            key,
            run.axolotl.get(key),
            f"an evaluation takes {batch:g} generations at a time ({key} x processes), which is not a multiple of "
            f"the {group:g} of a group, and TRL refuses that once the model is loaded",
            f"Set eval_batch_size={int(group)}, or val_set_size=0.",
            GRPO_CONFIG,
        )


def kto_of_one_row_at_a_time(run: RunFacts) -> Iterator[Finding]:
    """KTO uses the other rows of a batch to estimate how far the model has moved, so a batch of one row has none."""
    if run.axolotl.get("rl") == "kto" and run.number("micro_batch_size") == 1 and not run.foreign:
        yield error(
            "micro_batch_size",
            run.axolotl["micro_batch_size"],
            "TRL refuses KTO with one row at a time once the model is loaded; rows that are accumulated do not count",
            "Set micro_batch_size=2, with half of the gradient_accumulation_steps.",
            KTO,
        )


def _groups(run: RunFacts) -> bool:
    trl = _trl(run)
    own_batches = trl.get("async_prefetch") or trl.get("use_data_producer")
    return run.axolotl.get("rl") in ("grpo", "gdpo") and not own_batches and not run.foreign


def _trl(run: RunFacts) -> Mapping[str, Any]:
    trl = run.axolotl.get("trl")
    return trl if isinstance(trl, Mapping) else {}


def _group(run: RunFacts) -> float:
    return number(_trl(run).get("num_generations")) or DEFAULT


def _divisor(batch: int, most: int) -> int:
    """The largest group of at least two that fills the batch; `most` if there is none."""
    return next((size for size in range(min(batch, most), 1, -1) if batch % size == 0), most)


RULES = (groups_that_do_not_fill_the_batch, groups_that_do_not_fill_an_evaluation, kto_of_one_row_at_a_time)
