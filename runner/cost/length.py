"""An Axolotl config and the size of its data -> how much the run computes. Pure; the rules are those of Axolotl 0.21.

Steps are computed as in axolotl.utils.trainer.calculate_total_num_steps: rows x epochs / effective batch, rounded up;
with packing, tokens / tokens per batch. The intervals of evaluations and checkpoints are those of transformers, which
Axolotl converts to fractions of the run (axolotl.utils.config). axosweep adds an evaluation before the first step and
one after the last.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from modal_app.store.own_data import own_data_of
from runner.config.numbers import number
from runner.cost.types import Length, Range, Rows, Shape
from runner.memory.config import evaluates_without_logits

Config = Mapping[str, Any]

PACKING = 0.95
"""About how full packed rows become."""
PAD_TO = 64
"""Axolotl pads a batch's rows to a multiple of this."""
UNKNOWN_FILL = 0.25
"""If the length of rows is unknown, they may be this short, relative to sequence_len."""


def length_of(config: Config, ranks: int, rows: Rows | None) -> Length | str:
    """The length of a run, or a sentence that says why it is unknown. `ranks`: cards that each read their own rows."""
    shape = batch_of(config)
    epochs, given = _number(config, "num_epochs", 1.0), int(_number(config, "max_steps", 0))
    micro_tokens = _micro_tokens(config, rows).scaled(1 / _sharers_of_a_row(config))
    if given > 0:
        steps = given
    elif rows is None and (own := own_data_of(config)):
        return f"the number of rows is unknown, since it reads its own data ({own.key}), and max_steps is not set"
    elif rows is None:
        return "the number of rows is unknown until its dataset is prepared, and max_steps is not set"
    elif shape.packed and rows.tokens_per_row is None:
        return "the number of tokens is unknown until its dataset is prepared, and it packs rows"
    else:
        steps = _steps(shape, ranks, rows, epochs)
    eval_rows = 0 if rows is None else rows.eval_rows
    evals = _evals(config, steps, epochs) if eval_rows else 0
    eval_batch = int(_number(config, "eval_batch_size", shape.micro)) or 1
    batches = math.ceil(eval_rows / (eval_batch * ranks))
    source = "rows unknown, so without evaluations" if rows is None else rows.source
    return Length(
        steps=steps,
        micro_steps=shape.accumulation,
        micro_tokens=micro_tokens,
        evals=evals,
        eval_batches=batches,
        eval_tokens=eval_rows / ranks * micro_tokens.likely / max(shape.micro, 1) * _passes(config),
        saves=saves_of(config, steps),
        source=f"set by max_steps; {source}" if given > 0 else source,
    )


def _passes(config: Config) -> int:
    """How often an evaluation passes each batch through the model."""
    return 2 if evaluates_without_logits(config) else 1


def saves_of(config: Config, steps: int) -> int:
    """The checkpoints of a run of so many steps, and its final model."""
    every = _every(config, "save", steps, _number(config, "num_epochs", 1.0))
    if every is not None:
        return math.ceil(steps / every) + 1  # the last step saves as well
    epochs = max(1, math.ceil(_number(config, "num_epochs", 1.0)))
    return 1 + (0 if config.get("save_strategy") == "no" else epochs)


def rest_of(length: Length, begun: int) -> Length:
    """The rest of a run that starts from a checkpoint of that step (from=)."""
    part = max(length.steps - begun, 1) / length.steps
    return replace(
        length,
        steps=max(length.steps - begun, 1),
        evals=math.ceil(length.evals * part),
        saves=math.ceil(length.saves * part),
        source=f"from step {begun}, {length.source}",
    )


def data_ranks(config: Config, count: int) -> int:
    """The number of processes that read their own rows; with context or tensor parallelism, some share rows."""
    return max(count // _sharers_of_a_row(config), 1)


def _sharers_of_a_row(config: Config) -> int:
    """How many processes compute a row together, each a part of it."""
    keys = ("context_parallel_size", "sequence_parallel_degree", "tensor_parallel_size")
    return math.prod(size for key in keys if isinstance(size := config.get(key), int) and size > 1)


def shape_of(config: Config, gpu: str, count: int, place: str) -> Shape:
    """The properties that a run's speed depends on."""
    batch = batch_of(config)
    adapter = str(config.get("adapter") or "none")
    return Shape(
        base_model=str(config.get("base_model") or ""),
        adapter="dora" if config.get("peft_use_dora") else "lora" if adapter == "qlora" else adapter,
        bits=4 if config.get("load_in_4bit") else 8 if config.get("load_in_8bit") else 16,
        gpu=gpu,
        count=count,
        micro_batch=batch.micro,
        sequence_len=batch.sequence_len,
        packed=batch.packed,
        padded=batch.padded,
        checkpointing=bool(config.get("gradient_checkpointing")),
        sharding=_sharding(config),
        place=place,
    )


@dataclass(frozen=True, slots=True)
class Batch:
    """The batches of a config."""

    micro: int
    accumulation: int
    sequence_len: int
    packed: bool
    padded: bool
    """Whether every row is sequence_len long, as packed rows are."""


def batch_of(config: Config) -> Batch:
    micro = int(_number(config, "micro_batch_size", 1)) or 1
    total = int(_number(config, "batch_size", 0))
    packed = bool(config.get("sample_packing"))
    return Batch(
        micro=micro,
        accumulation=max(total // micro, 1) if total else int(_number(config, "gradient_accumulation_steps", 1)) or 1,
        sequence_len=int(_number(config, "sequence_len", 512)),
        packed=packed,
        padded=packed or bool(config.get("pad_to_sequence_len")),
    )


def _steps(shape: Batch, ranks: int, rows: Rows, epochs: float) -> int:
    batch = shape.micro * shape.accumulation * ranks
    if shape.packed:
        tokens = batch * shape.sequence_len * PACKING
        return max(1, math.floor(rows.rows * (rows.tokens_per_row or 0) / tokens) or 1) * max(1, math.ceil(epochs))
    return max(1, math.ceil(rows.rows * epochs / batch))


def _micro_tokens(config: Config, rows: Rows | None) -> Range:
    """The tokens of a micro step. A batch is as long as its longest row; the more rows a batch has, the nearer that is
    to the longest row of all."""
    shape = batch_of(config)
    most = float(shape.micro * shape.sequence_len)
    if shape.padded:
        return Range.exactly(most)
    if rows is None or rows.tokens_per_row is None:
        return Range(most * UNKNOWN_FILL, most * 2 * UNKNOWN_FILL, most)
    mean = min(rows.tokens_per_row, shape.sequence_len)
    longest = min(rows.longest_row or mean * 2, shape.sequence_len)
    likely = mean + (longest - mean) * (1 - 1 / shape.micro) / 2
    return Range(mean, _padded(likely, longest), _padded(longest, longest)).scaled(shape.micro)


def _padded(tokens: float, longest: float) -> float:
    return max(tokens, min(math.ceil(tokens / PAD_TO) * PAD_TO, longest))


def _evals(config: Config, steps: int, epochs: float) -> int:
    """The number of evaluations: before the first step, at the intervals, and after the last step."""
    strategy = config.get("eval_strategy")
    if strategy == "no":
        return 2
    if strategy == "epoch" and not config.get("eval_steps"):
        return 1 + max(1, math.ceil(epochs))
    every = _every(config, "eval", steps, epochs)
    return 2 if every is None else 1 + math.ceil(steps / every)


def _every(config: Config, what: str, steps: int, epochs: float) -> int | None:
    """The interval in steps; None if it is not counted in steps."""
    per_epoch, every = _number(config, f"{what}s_per_epoch", 0), _number(config, f"{what}_steps", 0)
    if per_epoch > 0 and epochs > 0:
        part = 1 / (per_epoch * epochs)
        every = part if part < 1 else every
    if every <= 0:
        return None
    return max(1, math.ceil(steps * every)) if every < 1 else int(every)


def _sharding(config: Config) -> str:
    settings = config.get("deepspeed")
    if isinstance(settings, Mapping):
        zero = settings.get("zero_optimization")
        return f"zero{zero.get('stage', 0)}" if isinstance(zero, Mapping) else "deepspeed"
    if settings:
        return "deepspeed"
    return "fsdp" if config.get("fsdp_config") else "none"


def _number(config: Config, key: str, default: float) -> float:
    value = number(config.get(key))
    return value if value and math.isfinite(value) else default
