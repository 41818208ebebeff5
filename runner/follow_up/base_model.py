"""What is done with the base model alone: one step for all runs that share it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modal_app.inference.config import asked_of
from modal_app.serving.spec import FORMAT
from modal_app.store.step import StepKind
from runner.follow_up.subjects import Subject, base_step
from runner.keys.identity import TRAIN_ONLY, short_hash
from runner.types import PlannedStep

LOADING = frozenset(
    "load_in_4bit load_in_8bit bf16 fp16 fp8 tf32 bfloat16 float16 adapter attn_implementation flash_attention "
    "sdp_attention xformers_attention eager_attention flex_attention".split()
)
"""Train-only keys that a base model is loaded by all the same."""
DATA_ONLY = ("test_datasets", "val_set_size", "seed", "data_seed", "dataset_", "shuffle_", "train_on_", "excess_")
"""How the keys begin that say which rows are read, and no more of a base model."""
RL_ONLY = ("rl_", "dpo_", "orpo_", "cpo_", "simpo_", "kto_", "rpo_", "trl", "precompute_ref_log_probs")
"""How the keys begin that weigh preferences and rewards while it trains. `rl` itself says how its rows are written."""


def base_answers(chosen: Sequence[Subject], options: Mapping[str, Any]) -> list[PlannedStep]:
    """One for each base model that the runs have."""
    firsts = {base_hash(one): one for one in reversed(chosen)}
    found = [base_step(one, StepKind.INFER, {**options, "base": digest}, digest) for digest, one in firsts.items()]
    return found[::-1]


def base_hash(subject: Subject) -> str:
    """Names a base model as it is loaded and asked: what only an adapter or a training differs by is not in it."""
    kept = asked_of(subject.config, adapter=None, weights=None)
    left_out = TRAIN_ONLY - LOADING
    part = {
        key: value for key, value in kept.items() if key not in left_out and not key.startswith(DATA_ONLY + RL_ONLY)
    }
    first: Mapping[str, Any] = next(iter(part.pop("datasets", None) or ()), {})
    return short_hash({"config": part, "format": {name: first[name] for name in FORMAT if name in first}})


def base_evaluations(chosen: Sequence[Subject], options: Mapping[str, Any]) -> list[PlannedStep]:
    """One for each base model that the runs have and, on held-out rows, for each dataset and size of a batch: the loss
    is a mean of means."""
    firsts: dict[tuple[str, ...], Subject] = {}
    for one in chosen:
        rows = () if options else (one.data_key, str(_rated_at_once(one.config)))
        firsts.setdefault((base_hash(one), *rows), one)
    return [base_step(one, StepKind.EVALUATE, options, list(identity)) for identity, one in firsts.items()]


def _rated_at_once(config: Mapping[str, Any]) -> Any:
    """Rows, as Axolotl settles it."""
    return config.get("eval_batch_size") or config.get("micro_batch_size")
