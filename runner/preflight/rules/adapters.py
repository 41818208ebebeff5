"""Rules about LoRA and QLoRA: adapters that are not trained, and scales and dropouts that spoil them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from modal_app.store.read_json import read_json
from runner.config.numbers import number
from runner.preflight.findings import Finding, error, shown, warning
from runner.preflight.rules.run_facts import RunFacts

AXOLOTL_LORA = "https://docs.axolotl.ai/docs/config-reference.html"
KERNELS = "https://github.com/axolotl-ai-cloud/axolotl/blob/main/src/axolotl/monkeypatch/lora_kernels.py"
RSLORA = "https://arxiv.org/abs/2312.03732"
LORA_SCALE = "https://thinkingmachines.ai/blog/lora/"
"""alpha = 32 for all ranks from 1 to 512: scales from 1/16 to 32."""
QLORA_DROPOUT = "https://arxiv.org/abs/2305.14314"
"""Dropouts of 0.1 for 7B and 13B, 0.05 for 33B and 65B; others use 0."""
WEIGHT_DECAY = "https://arxiv.org/abs/1711.05101"
LORA_KEYS = (
    "lora_r lora_alpha lora_target_linear lora_target_modules lora_target_parameters lora_modules_to_save lora_dropout "
    "lora_rank_pattern lora_alpha_pattern lora_fan_in_fan_out peft_use_dora peft_use_rslora peft_init_lora_weights "
    "peft_layers_to_transform peft_layer_replication peft_trainable_token_indices peft"
).split()
SAVED = {"lora_r": "r", "lora_alpha": "lora_alpha", "lora_dropout": "lora_dropout"}
"""Key -> what PEFT calls it in adapter_config.json."""
PEFT_SAVED = "https://huggingface.co/docs/peft/package_reference/peft_model#peft.PeftModel.from_pretrained"
LORA = "https://arxiv.org/abs/2106.09685"
SMALL = 100_000_000
LORA_RATE = 1e-4


def lora_without_adapter(run: RunFacts) -> Iterator[Finding]:
    """`lora_r` and the like have no effect until `adapter` is set: Axolotl then trains all weights."""
    keys = [key for key in LORA_KEYS if run.axolotl.get(key)]
    if not keys or run.axolotl.get("adapter"):
        return
    rate = run.number("learning_rate") or 0
    at_that_rate = ""
    if rate >= LORA_RATE and (run.parameters is None or run.parameters >= 1e9):
        at_that_rate = f", at a learning rate for LoRA ({shown(run.axolotl['learning_rate'])})"
    yield warning(
        keys[0],
        run.axolotl[keys[0]],
        f"without adapter=lora Axolotl ignores it and trains all weights of the model{at_that_rate}",
        f"Set adapter=lora, or remove {', '.join(keys)}.",
        AXOLOTL_LORA,
    )


def lora_kernels_without_adapter(run: RunFacts) -> Iterator[Finding]:
    """Axolotl's fused LoRA kernels refuse a model without an adapter ("Model must be a PeftModel")."""
    on = [key for key in ("lora_mlp_kernel", "lora_qkv_kernel", "lora_o_kernel") if run.axolotl.get(key) is True]
    if on and not run.axolotl.get("adapter") and not run.axolotl.get("rl"):
        yield error(
            on[0],
            True,
            "without an adapter it ends the run with a TypeError once the model is loaded",
            f"Set adapter=lora, or remove {', '.join(on)}.",
            KERNELS,
        )


def alpha_far_from_the_rank(run: RunFacts) -> Iterator[Finding]:
    """LoRA multiplies its update by lora_alpha / lora_r (rsLoRA: by lora_alpha / sqrt(lora_r)), usually 0.25 to 4."""
    rank, alpha = run.number("lora_r"), run.number("lora_alpha")
    if not run.adapts or not rank or not alpha or run.axolotl.get("lora_model_dir"):
        return
    stable = bool(run.axolotl.get("peft_use_rslora"))
    scale = alpha / (math.sqrt(rank) if stable else rank)
    if _is_usual(scale, rank, stable=stable):
        return
    formula = "lora_alpha / sqrt(lora_r), with rsLoRA" if stable else "lora_alpha / lora_r"
    much = "learning_rate is in effect multiplied by as much" if scale > 1 else "it hardly changes the model"
    yield warning(
        "lora_alpha",
        run.axolotl["lora_alpha"],
        f"the adapter's update is multiplied by {scale:.3g} ({formula}, lora_r={rank:g}), and {much}",
        f"Set lora_alpha={round(2 * math.sqrt(rank)) if stable else round(2 * rank)}"
        f"{', or peft_use_rslora=false' if stable else ''}.",
        RSLORA if stable else LORA_SCALE,
    )


def _is_usual(scale: float, rank: float, *, stable: bool) -> bool:
    if stable:
        return 1 / 8 <= scale <= 20
    return 1 / 32 <= scale <= (64 if rank < 4 else 16)


def settings_of_another_adapter(run: RunFacts) -> Iterator[Finding]:
    """Axolotl trains the adapter in `lora_model_dir` as it was saved: another rank or alpha in the config is ignored,
    so runs that differ only in these values are equal."""
    folder = run.axolotl.get("lora_model_dir")
    if not run.adapts or not isinstance(folder, str) or not folder:
        return
    saved = read_json(Path(folder).expanduser() / "adapter_config.json", lenient=True)
    ignored = [
        f"{key}={shown(run.axolotl[key])} (saved: {shown(saved[name])})"
        for key, name in SAVED.items()
        if run.axolotl.get(key) is not None and name in saved and number(saved[name]) != run.number(key)
    ]
    if ignored:
        yield warning(
            "lora_model_dir",
            folder,
            f"Axolotl trains this adapter as it was saved, so {', '.join(ignored)} has no effect",
            "Write the saved values, or train a new adapter (~lora_model_dir).",
            PEFT_SAVED,
        )


def rank_of_more_weights_than_the_matrices(run: RunFacts) -> Iterator[Finding]:
    """With a rank above half the model's width, LoRA's two matrices have more weights than the one that they adapt."""
    rank, model = run.number("lora_r") or 0, run.model
    if not run.adapts or model is None or model.parameters < SMALL or run.axolotl.get("lora_model_dir"):
        return
    if rank * 2 > model.hidden:
        yield warning(
            "lora_r",
            run.axolotl["lora_r"],
            f"the model is {model.hidden} wide, so the adapter of a matrix has {rank * 2 / model.hidden:.2g} times the "
            "weights of the matrix itself: it costs more than training all weights",
            f"Set lora_r={min(256, model.hidden // 8)}, or train all weights (lora=none).",
            LORA,
        )


def dropout_of_half_the_adapter(run: RunFacts) -> Iterator[Finding]:
    """A lora_dropout of a half hides most of what a small adapter could learn."""
    dropout = run.number("lora_dropout") or 0
    if run.adapts and dropout >= 0.5:
        yield warning(
            "lora_dropout",
            run.axolotl["lora_dropout"],
            f"{dropout:.0%} of the adapter's inputs are zero in each step, and an adapter has few weights as it is",
            "Set lora_dropout=0.05, or 0 (which also lets Axolotl's faster kernels work).",
            QLORA_DROPOUT,
        )


def weight_decay_of_half_the_weights(run: RunFacts) -> Iterator[Finding]:
    """A weight decay of 0.5 or more pulls pretrained weights to zero; with AdamW, 0 to 0.1 is usual."""
    decay = run.number("weight_decay") or 0
    optimizer = str(run.axolotl.get("optimizer") or "")
    if decay >= 0.5 and "lion" not in optimizer and "muon" not in optimizer:
        yield warning(
            "weight_decay",
            run.axolotl["weight_decay"],
            f"each step removes learning_rate x {decay:g} of every trained weight, {decay / 0.1:.2g} times as much "
            "as the largest usual value (0.1), so the run unlearns while it learns",
            "Set weight_decay=0.01, or 0.",
            WEIGHT_DECAY,
        )


RULES = (
    lora_without_adapter,
    lora_kernels_without_adapter,
    alpha_far_from_the_rank,
    settings_of_another_adapter,
    rank_of_more_weights_than_the_matrices,
    dropout_of_half_the_adapter,
    weight_decay_of_half_the_weights,
)
