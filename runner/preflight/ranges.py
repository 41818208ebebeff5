"""Which numbers make sense for keys where Axolotl's schema accepts any number. Data for runner.preflight.values.

A number outside its range makes a run fail after its model was loaded (a negative batch), makes its training useless (a
learning rate of 0), or means "not set" (a negative max_steps).
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Range:
    low: float | None = None
    high: float | None = None
    above: bool = False
    """`low` itself is outside."""
    below: bool = False
    """`high` itself is outside."""
    also: tuple[float, ...] = ()
    """Values outside the range that have a meaning of their own."""
    share_or_count: bool = False
    """Numbers below 1 are shares; from 1 on, only whole numbers are valid."""

    def holds(self, value: float) -> bool:
        if value in self.also:
            return True
        if not math.isfinite(value) or (self.share_or_count and value > 1 and not value.is_integer()):
            return False
        above_low = self.low is None or value > self.low or (value == self.low and not self.above)
        below_high = self.high is None or value < self.high or (value == self.high and not self.below)
        return above_low and below_high

    @property
    def text(self) -> str:
        """For people.

        >>> Range(0, 1, above=True).text, Range(1).text
        ('above 0 and at most 1', 'at least 1')
        """
        parts = []
        if self.low is not None:
            parts.append(f"{'above' if self.above else 'at least'} {self.low:g}")
        if self.high is not None:
            parts.append(f"{'below' if self.below else 'at most'} {self.high:g}")
        text = " and ".join(parts)
        if self.share_or_count:
            text += " (below 1 a share, from 1 on a whole number)"
        return " or ".join([text, *(f"{one:g}" for one in self.also)])


_COUNT = Range(1)
_NONE_OR_MORE = Range(0)
_SHARE = Range(0, 1)
_SHARE_BELOW_1 = Range(0, 1, below=True)
_RATE = Range(0, 1, above=True)
_POSITIVE = Range(0, above=True)

_TABLE: tuple[tuple[Range, str], ...] = (
    (
        _COUNT,
        "sequence_len eval_sequence_len max_prompt_len micro_batch_size gradient_accumulation_steps batch_size "
        "eval_batch_size lora_r lora_alpha num_labels logging_steps dataset_num_proc dataset_processes "
        "dataset_shard_num num_dataset_shards_to_save dataloader_prefetch_factor sample_packing_group_size "
        "sample_packing_bin_size pad_to_multiple_of ddp_timeout ddp_bucket_cap_mb torch_empty_cache_steps "
        "loss_watchdog_patience num_generation_samples generation_max_new_tokens jagged_restart_steps "
        "streaming_multipack_buffer_size chunked_cross_entropy_num_chunks tiled_mlp_num_shards lisa_n_layers "
        "lisa_step_interval dp_shard_size dp_replicate_size context_parallel_size tensor_parallel_size "
        "sequence_parallel_degree pose_num_chunks pose_max_context_len",
    ),
    (
        _NONE_OR_MORE,
        "warmup_steps save_total_limit evals_per_epoch saves_per_epoch early_stopping_patience dataloader_num_workers "
        "dataset_shard_idx min_sample_len max_grad_norm loraplus_lr_embedding jagged_restart_warmup_steps "
        "jagged_restart_anneal_steps profiler_steps profiler_steps_start generation_temperature rl_beta dpo_beta "
        "orpo_alpha cpo_alpha kto_desirable_weight kto_undesirable_weight",
    ),
    (_RATE, "learning_rate embedding_lr dion_lr"),
    (_POSITIVE, "num_epochs adam_epsilon loraplus_lr_ratio embedding_lr_scale lr_div_factor loss_watchdog_threshold"),
    (_SHARE, "weight_decay warmup_ratio cosine_min_lr_ratio cosine_constant_lr_ratio relora_prune_ratio"),
    (_SHARE, "generation_prompt_ratio"),
    (_SHARE_BELOW_1, "lora_dropout adam_beta1 adam_beta2 adam_beta3 dpo_label_smoothing"),
    (_RATE, "generation_top_p sample_packing_eff_est"),
    (Range(1, also=(-1,)), "max_steps"),
    (Range(0, share_or_count=True), "eval_steps save_steps"),
    (Range(0, 2**32 - 1), "seed"),
)

RANGES = {name: one for one, names in _TABLE for name in names.split()}

IN_DATASETS = {
    "shards": _COUNT,
    "preprocess_shards": _COUNT,
    "shards_idx": _NONE_OR_MORE,
    "weight": _POSITIVE,
}

BELOW = {
    "trl.max_completion_length": _COUNT,
    "trl.num_iterations": _COUNT,
    "trl.temperature": _POSITIVE,
    "trl.top_p": _RATE,
    "trl.beta": _NONE_OR_MORE,
    "vllm.gpu_memory_utilization": _RATE,
    "vllm.max_model_len": _COUNT,
    "vllm.tensor_parallel_size": _COUNT,
}

VAL_SET_SIZE = "a share of the rows (below 1), a number of rows (2 or more), or 0 for no evaluation"
"""Axolotl reads 1 as a share, and the datasets library refuses to hold out all rows."""
