"""Steps of the base model alone: one for all runs that share it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modal_app.inference.config import config_to_load
from modal_app.serving.spec import FORMAT
from modal_app.store.step import StepKind
from runner.follow_up.subjects import Subject, base_step
from runner.keys.identity import TRAIN_ONLY, short_hash
from runner.types import PlannedStep

LOADING = frozenset(
    "load_in_4bit load_in_8bit bf16 fp16 fp8 tf32 bfloat16 float16 adapter attn_implementation flash_attention "
    "sdp_attention xformers_attention eager_attention flex_attention".split()
)
"""Train-only keys that also decide how a base model is loaded."""
DATA_ONLY = ("test_datasets", "val_set_size", "seed", "data_seed", "dataset_", "shuffle_", "train_on_", "excess_")
"""Prefixes of keys that only decide which rows are read, not how a base model is loaded."""
RL_ONLY = ("rl_", "dpo_", "orpo_", "cpo_", "simpo_", "kto_", "rpo_", "trl", "precompute_ref_log_probs")
"""Prefixes of keys that weigh preferences and rewards during training. `rl` itself decides the format of the rows."""


def base_answers(chosen: Sequence[Subject], options: Mapping[str, Any]) -> list[PlannedStep]:
    """A step for each base model of the runs."""
    firsts = {base_hash(one): one for one in reversed(chosen)}
    found = [base_step(one, StepKind.INFER, {**options, "base": digest}, digest) for digest, one in firsts.items()]
    return found[::-1]


def base_hash(subject: Subject) -> str:
    """Identifies a base model and how it is loaded and prompted, without what only concerns adapters or training."""
    config = config_to_load(subject.config, adapter=None, weights=None)
    left_out = TRAIN_ONLY - LOADING
    part = {
        key: value for key, value in config.items() if key not in left_out and not key.startswith(DATA_ONLY + RL_ONLY)
    }
    first: Mapping[str, Any] = next(iter(part.pop("datasets", None) or ()), {})
    return short_hash({"config": part, "format": {name: first[name] for name in FORMAT if name in first}})


def base_evaluations(chosen: Sequence[Subject], options: Mapping[str, Any]) -> list[PlannedStep]:
    """A step for each base model of the runs. On held-out rows: also for each dataset and batch size, since the loss is
    a mean over batches."""
    firsts: dict[tuple[str, ...], Subject] = {}
    for one in chosen:
        rows = () if options else (one.data_key, str(_eval_batch_size(one.config)))
        firsts.setdefault((base_hash(one), *rows), one)
    return [base_step(one, StepKind.EVALUATE, options, list(identity)) for identity, one in firsts.items()]


def _eval_batch_size(config: Mapping[str, Any]) -> Any:
    """The batch size of an evaluation in rows, with Axolotl's own default."""
    return config.get("eval_batch_size") or config.get("micro_batch_size")
