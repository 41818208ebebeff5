"""Keys that Axolotl reads only next to another key: alone, they change nothing, and the run does not do what its config
says.

Each entry names the place in Axolotl's source where its condition is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from runner.preflight.findings import Finding, warning
from runner.preflight.rules.run_facts import RunFacts, has_foreign_plugin

Config = Mapping[str, Any]
AXOLOTL = "https://github.com/axolotl-ai-cloud/axolotl/blob/main/src/axolotl/"
CAUSAL, RL, BASE = "core/builders/causal.py", "core/builders/rl.py", "core/builders/base.py"


@dataclass(frozen=True, slots=True)
class Partner:
    """What the keys of an entry need."""

    has: Callable[[Config], Any]
    words: str
    """For people: `without ...`."""
    way_out: str
    path: str
    """In Axolotl's source."""


def _rl(*names: str) -> Callable[[Config], bool]:
    return lambda config: config.get("rl") in names


def _set(key: str) -> Callable[[Config], Any]:
    return lambda config: config.get(key)


def _scheduler(*names: str) -> Callable[[Config], bool]:
    return lambda config: (config.get("lr_scheduler") or "cosine") in names or has_foreign_plugin(config)


_ANY_RL = Partner(_set("rl"), "without rl", "Set rl, or remove it.", RL)
_DPO = Partner(_rl("dpo", "ipo"), "without rl=dpo", "Set rl=dpo, or remove it.", "core/trainers/dpo/__init__.py")
_KTO = Partner(_rl("kto"), "without rl=kto", "Set rl=kto, or remove it.", RL)
_SIMPO = Partner(_rl("simpo"), "without rl=simpo", "Set rl=simpo, or remove it.", RL)
_PACKED = Partner(
    lambda config: config.get("sample_packing") or config.get("streaming") or config.get("pretraining_dataset"),
    "without sample_packing",
    "Set sample_packing=true, or remove it.",
    CAUSAL,
)
_RELORA = Partner(_set("relora"), "without relora", "Set relora=true, or remove it.", "monkeypatch/relora.py")
_JAGGED = Partner(
    _set("jagged_restart_steps"),
    "without jagged_restart_steps",
    "Set jagged_restart_steps, or remove it.",
    "core/trainers/mixins/scheduler.py",
)
_LISA = Partner(
    lambda config: config.get("lisa_n_layers") and config.get("lisa_step_interval") and not config.get("rl"),
    "unless lisa_n_layers and lisa_step_interval are both set, and rl is not",
    "Set both, or remove it.",
    CAUSAL,
)
_COSINE = Partner(
    lambda config: (
        _scheduler("cosine", "rex", "cosine_with_min_lr", "cosine_warmup_with_min_lr")(config)
        or config.get("jagged_restart_steps")
    ),
    "unless lr_scheduler is cosine or rex",
    "Set lr_scheduler=cosine, or remove it.",
    "core/trainers/mixins/scheduler.py",
)
_CONSTANT = Partner(
    lambda config: _scheduler("cosine")(config) and config.get("cosine_min_lr_ratio"),
    "without cosine_min_lr_ratio and lr_scheduler=cosine",
    "Set cosine_min_lr_ratio, or remove it.",
    "core/trainers/mixins/scheduler.py",
)
_QUADRATIC = Partner(
    lambda config: _scheduler("cosine")(config) and not config.get("rl"),
    "unless lr_scheduler is cosine and rl is not set",
    "Set lr_scheduler=cosine, or remove it.",
    CAUSAL,
)
_COMPILED = Partner(_set("torch_compile"), "without torch_compile", "Set torch_compile=true, or remove it.", BASE)
_SFT = Partner(
    lambda config: not config.get("rl"),
    "with rl: only Axolotl's trainer for supervised training adds this noise",
    "Remove it.",
    RL,
)
_WATCHED = Partner(
    _set("loss_watchdog_threshold"),
    "without loss_watchdog_threshold",
    "Set loss_watchdog_threshold=5.0, or remove it.",
    "utils/callbacks/__init__.py",
)
_SCORED = Partner(
    _set("do_causal_lm_eval"), "without do_causal_lm_eval", "Set do_causal_lm_eval=true, or remove it.", CAUSAL
)
_BENCHED = Partner(_set("do_bench_eval"), "without do_bench_eval", "Set do_bench_eval=true, or remove it.", CAUSAL)
_BALANCED = Partner(_set("balance_labels"), "without balance_labels", "Set balance_labels=true, or remove it.", CAUSAL)
_REWARD = Partner(_set("reward_model"), "without reward_model", "Set reward_model=true, or remove it.", CAUSAL)
_FSDP = Partner(
    lambda config: any(config.get(key) for key in ("fsdp_config", "fsdp", "dp_shard_size", "dp_replicate_size")),
    "without fsdp_config",
    "Choose fsdp=fsdp2, or remove it.",
    "utils/trainer.py",
)
_VLLM = Partner(_set("rl"), "without rl=grpo", "Set rl=grpo, or remove it.", "core/trainers/grpo/__init__.py")
_TILED = Partner(
    _set("tiled_mlp"), "without tiled_mlp", "Set tiled_mlp=true, or remove it.", "loaders/patch_manager.py"
)
_GENERATED = Partner(
    lambda config: config.get("generate_samples") or config.get("diffusion_lm") or config.get("plugins"),
    "without generate_samples",
    "Set generate_samples=true, or remove it.",
    "utils/callbacks/generation.py",
)
_PLUS = Partner(
    _set("loraplus_lr_ratio"),
    "without loraplus_lr_ratio",
    "Set loraplus_lr_ratio=16, or remove it.",
    "core/trainers/mixins/optimizer.py",
)
_ADAPTED = Partner(
    _set("adapter"), "without adapter=lora", "Set adapter=lora, or remove it.", "core/trainers/mixins/optimizer.py"
)

PARTNERS: Mapping[str, Partner] = {
    **dict.fromkeys(("rl_beta", "dpo_beta", "orpo_alpha", "trl"), _ANY_RL),
    **dict.fromkeys(
        (
            "dpo_label_smoothing",
            "dpo_use_weighting",
            "dpo_padding_free",
            "dpo_ld_alpha",
            "dpo_use_liger_kernel",
            "precompute_ref_log_probs",
        ),
        _DPO,
    ),
    **dict.fromkeys(("kto_desirable_weight", "kto_undesirable_weight"), _KTO),
    **dict.fromkeys(("cpo_alpha", "simpo_gamma"), _SIMPO),
    **dict.fromkeys(
        (
            "sample_packing_eff_est",
            "sample_packing_group_size",
            "sample_packing_bin_size",
            "sample_packing_sequentially",
            "multipack_real_batches",
        ),
        _PACKED,
    ),
    **dict.fromkeys(("relora_prune_ratio", "relora_prune_method", "relora_cpu_offload"), _RELORA),
    **dict.fromkeys(("jagged_restart_warmup_steps", "jagged_restart_anneal_steps"), _JAGGED),
    **dict.fromkeys(("lisa_n_layers", "lisa_step_interval"), _LISA),
    "cosine_min_lr_ratio": _COSINE,
    "cosine_constant_lr_ratio": _CONSTANT,
    "lr_quadratic_warmup": _QUADRATIC,
    **dict.fromkeys(("torch_compile_backend", "torch_compile_mode", "torch_compile_options"), _COMPILED),
    **dict.fromkeys(("neftune_noise_alpha", "noisy_embedding_alpha"), _SFT),
    "loss_watchdog_patience": _WATCHED,
    "eval_causal_lm_metrics": _SCORED,
    "bench_dataset": _BENCHED,
    "label_balance_window_optim_steps": _BALANCED,
    "center_rewards_coefficient": _REWARD,
    "loraplus_lr_ratio": _ADAPTED,
    "loraplus_lr_embedding": _PLUS,
    "fsdp_version": _FSDP,
    "vllm": _VLLM,
    "tiled_mlp_num_shards": _TILED,
    **dict.fromkeys(
        (
            "num_generation_samples",
            "generation_max_new_tokens",
            "generation_temperature",
            "generation_top_p",
            "generation_top_k",
            "generation_prompt_ratio",
        ),
        _GENERATED,
    ),
}


def key_without_its_partner(run: RunFacts) -> Iterator[Finding]:
    """A key that Axolotl reads only next to another one (dpo_label_smoothing next to rl=dpo) has no effect alone."""
    for key, value in run.axolotl.items():
        partner = PARTNERS.get(key)
        if partner is not None and value not in (None, False, 0, "", [], {}) and not partner.has(run.axolotl):
            scheduler = run.axolotl.get("lr_scheduler")
            here = f" (here it is {scheduler})" if scheduler and "lr_scheduler" in partner.words else ""
            seen = f"Axolotl does not read it {partner.words}{here}"
            yield warning(key, value, seen, partner.way_out, f"{AXOLOTL}{partner.path}")


RULES = (key_without_its_partner,)
