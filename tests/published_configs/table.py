"""The published-style configs, and for each whether it could run on the trainer, or the true reason why not.

Each is written as people publish them; its first line says in whose style. The truth comes from plain Axolotl 0.21: its
schema's verdict (tests/good_configs/verdicts.py), and the code that it would run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
FILES = tuple(sorted(HERE.glob("*.yml")))


@dataclass(frozen=True, slots=True)
class Verdict:
    """The truth about a config."""

    reason: tuple[str, ...] = ()
    """Words that a refusal has to contain; empty for a config that could run."""
    pending: str = ""
    """What axosweep does not support yet. The test then has to fail."""


COULD_RUN = Verdict()


def only_refused_here(*reason: str) -> Verdict:
    """Plain Axolotl would run it. axosweep has to know the content of all inputs beforehand, and says so."""
    return Verdict(reason)


def refused(*reason: str, pending: str = "") -> Verdict:
    return Verdict(reason, pending)


OLD: Mapping[str, Verdict] = {
    "old_codellama_books": refused("lr_scheduler=cosine_with_min_lr", "min_lr_rate", "cosine_min_lr_ratio is for"),
    "old_empty_texts": COULD_RUN,
    "old_falcon_gptq_keys": COULD_RUN,
    "old_fifteen_formats": COULD_RUN,
    "old_galore_layerwise": refused("galore_adamw_8bit_layerwise", "galore_torch", "galore-torch==VERSION"),
    "old_gptj_4bit_spelling": refused("no key load_4bit", "load_in_4bit"),
    "old_gptq_lora": refused("gptq=true", "gptqmodel==VERSION"),
    "old_lisa_llama2": COULD_RUN,
    "old_llama2_70b_fsdp_list": refused("`fsdp` list is no longer supported", "fsdp_config"),
    "old_llama2_8bit_lora": COULD_RUN,
    "old_llama3_orpo": COULD_RUN,
    "old_longlora_shifted_attention": refused("`s2_attention` (shifted-sparse attention) is no longer supported"),
    "old_mamba": refused("save_safetensors=False is not supported", "no class MambaLMHeadModel"),
    "old_mistral_qlora": COULD_RUN,
    "old_mixtral_moe_qlora": COULD_RUN,
    "old_phi2_full": COULD_RUN,
    "old_pythia_lora": COULD_RUN,
    "old_relora_steps": refused("no key relora_steps", "no key relora_warmup_steps", "jagged_restart_warmup_steps"),
    "old_rope_scaled_packing": refused("`max_packed_sequence_len` is no longer supported"),
    "old_rows_by_address": only_refused_here("https://example.com", "s3://somebodys-bucket", "cannot be pinned"),
    "old_sharegpt_chatml": refused("gradient_checkpointing=unsloth", "`type: sharegpt.*` is deprecated"),
    "old_tinyllama_pretrain": COULD_RUN,
    "old_unsloth_kernels": refused("`unsloth_lora_mlp` has been removed", "lora_mlp_kernel"),
    "old_zephyr_dpo": COULD_RUN,
}
NEW: Mapping[str, Verdict] = {
    "new_command_r7b_zero1": COULD_RUN,
    "new_deepseek_v2_lite": COULD_RUN,
    "new_gemma2_reward": COULD_RUN,
    "new_gemma3_text": COULD_RUN,
    "new_gpt_oss_thinking": COULD_RUN,
    "new_granite4_hybrid": COULD_RUN,
    "new_grpo_own_rewards": COULD_RUN,
    "new_internlm3_trusted": refused("lora_mlp_kernel=true", "not compatible with trust_remote_code"),
    "new_jamba_fsdp2_qlora": COULD_RUN,
    "new_llama31_fsdp2_full": COULD_RUN,
    "new_llama32_qlora_kernels": COULD_RUN,
    "new_llama33_fsdp1": refused(
        "no key fsdp_config.sharding_strategy any more", "FSDP1 has been removed from Axolotl"
    ),
    "new_llava_pictures": COULD_RUN,
    "new_llm_compressor_sparse": refused("llm_compressor", "llmcompressor==VERSION"),
    "new_long_context_ring": refused("sequence_parallel_degree=4", "axolotl-ringmaster==VERSION"),
    "new_magistral_with_template": refused("chat_template=mistral_v7_tekken", "not supported with mistral-common"),
    "new_olmo3_tools": COULD_RUN,
    "new_pretokenized": COULD_RUN,
    "new_pretraining_multipack": COULD_RUN,
    "new_quantization_aware_8bit": refused("QAT and load_in_8bit cannot be used together"),
    "new_qwen25_dora_rslora": COULD_RUN,
    "new_qwen25_process_reward": COULD_RUN,
    "new_qwen3_cut_cross_entropy": refused("fork of cut_cross_entropy", "ml-cross-entropy@COMMIT"),
    "new_spectrum_gemma2": COULD_RUN,
    "new_ulysses_deepspeed": COULD_RUN,
    "new_voxtral_audio": refused("VoxtralProcessor needs the package soundfile", "soundfile==VERSION"),
}
TRANSLATED: Mapping[str, Verdict] = {
    "factory_apollo_pretrain": refused("optimizer=apollo_adamw", "apollo_torch"),
    "factory_badam": refused("optimizer=badam: no such name"),
    "factory_freeze_zero3": refused("deepspeed=examples/deepspeed/ds_z3_config.json: there is no such file"),
    "factory_keys_left_in": refused("no key stage", "no key finetuning_type", "lora_r", "Did you mean chat_template?"),
    "factory_llama3_lora_sft": COULD_RUN,
    "factory_phi4_template": refused("chat_template=phi_4", "'phi_35'", "tokenizer_default_fallback_"),
    "factory_pissa_phi3": COULD_RUN,
    "factory_qwen2vl_sft": refused("Qwen2VLProcessor needs the package torchvision", "torchvision==VERSION"),
    "factory_reft": refused("Adapter 'loreft' is not built in"),
    "factory_schedule_free_loftq": only_refused_here(
        "tokenizer_config=allenai/OLMo-2-1124-7B-Instruct", "at one commit"
    ),
    "trl_dpo_mixed_losses": COULD_RUN,
    "trl_dpo_rpo_alpha": refused("rpo_alpha=1.0", "not yet supported by Axolotl"),
    "trl_grpo_one_generation": refused("GRPO requires `trl.num_generations >= 2`"),
    "trl_grpo_vllm_server": refused("trl.use_vllm=true", "vllm==VERSION"),
    "trl_ipo_legacy_name": COULD_RUN,
    "trl_knowledge_distillation": COULD_RUN,
    "trl_kto_mix": refused("Set `remove_unused_columns: False` when using kto"),
    "trl_online_dpo": refused("rl=online_dpo", "'dpo'"),
    "trl_ppo": refused("no key reward_model_path", "no key num_ppo_epochs"),
    "trl_reward_lora": COULD_RUN,
    "trl_sft_capybara": COULD_RUN,
    "trl_simpo": refused("rl=simpo", "use `warmup_steps` instead"),
}
VERDICTS: Mapping[str, Verdict] = {**OLD, **NEW, **TRANSLATED}
