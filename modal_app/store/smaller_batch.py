"""A smaller micro batch with more accumulation: the same rows in each optimizer step, and less memory. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Config = Mapping[str, Any]

BATCH = "micro_batch_size"
MOST_TIMES = 3
"""How often a run is tried again."""
ORDERED_BY_BATCHES = ("sample_packing", "group_by_length", "batch_flattening", "pretraining_dataset", "streaming",
                      "rl", "reward_model", "process_reward_model", "dataloader_drop_last",
                      "accelerator_config")  # fmt: skip
"""With any of these, another micro batch may mean other rows in a step."""


def smaller_batches(config: Config) -> Iterator[dict[str, int]]:
    """What to change in a config, the largest smaller micro batch first; nothing if there is none."""
    micro, steps = config.get(BATCH), config.get("gradient_accumulation_steps") or 1
    if not isinstance(micro, int) or not isinstance(steps, int):
        return
    evaluated = config.get("eval_batch_size")
    for size in range(micro - 1, 0, -1):
        if micro % size == 0:
            changes = {BATCH: size, "gradient_accumulation_steps": steps * (micro // size)}
            if isinstance(evaluated, int) and evaluated > size:
                changes["eval_batch_size"] = size
            yield changes


def changes_after(config: Config, times: int) -> dict[str, int]:
    """What to change in a config to go so many rungs down; less if there are fewer, and nothing for none."""
    changes: dict[str, int] = {}
    for _ in range(times):
        changes = next(smaller_batches({**config, **changes}), changes)
    return changes


def keeps_order(config: Config) -> bool:
    """Whether the rows of each optimizer step are the same with another micro batch, so that a run may resume from a
    checkpoint of the former one."""
    return not any(config.get(key) for key in ORDERED_BY_BATCHES)


def batch_text(before: Any, after: Any) -> str:
    """
    >>> batch_text(4, 2)
    'micro_batch_size 4 -> 2 after out of memory'
    """
    return f"{BATCH} {before} -> {after} after out of memory"
