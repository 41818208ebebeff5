"""Rules about attention: packed rows that see each other, formats that it does not take, positions beyond the last."""

from __future__ import annotations

from collections.abc import Iterator

from runner.config.vocabulary import OLD_ATTENTION
from runner.preflight.findings import Finding, error, warning
from runner.preflight.rules.run_facts import RunFacts, is_off, is_on

PACKING = "https://docs.axolotl.ai/docs/multipack.html"
APART = frozenset(
    """
    flash_attention_2 flash_attention_3 flash_attention_4 flash_attention_torch flex_attention xformers sage sdpa eager
    kernels-community/flash-attn2 kernels-community/flash-attn3 kernels-community/sage-attention
    """.split()
)
"""attn_decontaminates_packing in axolotl.utils.schemas.config: packed rows do not see each other under them. Other
kernels of FlashAttention take the lengths of the rows, too."""
FLASH_ATTENTION = "https://github.com/Dao-AILab/flash-attention#nvidia-cuda-support"
POSITIONS = "https://huggingface.co/docs/transformers/model_doc/llama#transformers.LlamaConfig"
LONGER = ("overrides_of_model_config", "model_config", "use_pose")
"""Keys with which a config extends a model's context, so that its limit is unknown."""
FLASH = ("flash_attention_2", "flash_attention_3")
SIXTEEN_BITS = ("bfloat16", "fp16", "float16", "fp8")


def packed_rows_that_see_each_other(run: RunFacts) -> Iterator[Finding]:
    """With sample_packing, a row must not see the rows before it in the same sequence; not every attention prevents
    that."""
    config = run.axolotl
    if not config.get("sample_packing") or config.get("diffusion_lm") or any(config.get(key) for key in OLD_ATTENTION):
        return
    attention = config.get("attn_implementation")
    if attention is not None and (_base(str(attention)) in APART or "flash" in str(attention)):
        return
    seen = "without attn_implementation" if attention is None else f"under attn_implementation={attention}"
    yield warning(
        "sample_packing",
        True,
        f"{seen}, Axolotl does not keep packed rows apart: in training, each row sees the rows before it",
        "Set attn_implementation=flash_attention_2 (or sdpa).",
        PACKING,
    )


def _base(attention: str) -> str:
    """Without a kernel's revision and name, as Axolotl compares it."""
    return attention.split(":", 1)[0].split("@", 1)[0].strip()


def flash_attention_in_fp32(run: RunFacts) -> Iterator[Finding]:
    """FlashAttention computes in 16 bit only, and refuses a model that trains in fp32."""
    config = run.axolotl
    attention = "flash_attention_2" if config.get("flash_attention") else str(config.get("attn_implementation"))
    in_fp32 = is_off(config.get("bf16")) and not any(is_on(config.get(key)) for key in SIXTEEN_BITS)
    if run.experiment.gpu.type != "cpu" and attention in FLASH and in_fp32 and not is_on(config.get("load_in_8bit")):
        yield error(
            "attn_implementation",
            attention,
            "with bf16=false and no fp16 the model is in fp32, and FlashAttention takes fp16 and bf16 only, so the "
            "first step fails",
            "Set bf16=true, or attn_implementation=sdpa.",
            FLASH_ATTENTION,
        )


def sequence_longer_than_the_context(run: RunFacts) -> Iterator[Finding]:
    """sequence_len is longer than the model's context: the model has learned nothing about positions beyond it."""
    context, source = _context(run)
    length = run.number("sequence_len")
    if context and length and length > context and not any(run.axolotl.get(key) for key in LONGER):
        yield warning(
            "sequence_len",
            run.axolotl["sequence_len"],
            f"the context of {run.axolotl.get('base_model')} has {context} positions, and it has learned nothing about "
            "tokens beyond them",
            f"Set sequence_len={context}, or extend the context (overrides_of_model_config).",
            source if source.startswith("https://") else POSITIONS,
        )


def _context(run: RunFacts) -> tuple[int, str]:
    """The positions that the model has, and where that is published; 0 if it is unknown."""
    if run.model is not None:
        return run.model.context, run.model.source
    known = run.model_config.get("max_position_embeddings")
    return (known if isinstance(known, int) else 0), ""


RULES = (packed_rows_that_see_each_other, flash_attention_in_fp32, sequence_longer_than_the_context)
