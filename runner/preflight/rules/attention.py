"""Rules about attention: rows that see each other where they are packed into one."""

from __future__ import annotations

from collections.abc import Iterator

from runner.preflight.findings import Finding, warning
from runner.preflight.rules.run_facts import RunFacts

PACKING = "https://docs.axolotl.ai/docs/multipack.html"
APART = frozenset(
    """
    flash_attention_2 flash_attention_3 flash_attention_4 flash_attention_torch flex_attention xformers sage sdpa eager
    kernels-community/flash-attn2 kernels-community/flash-attn3 kernels-community/sage-attention
    """.split()
)
"""attn_decontaminates_packing in axolotl.utils.schemas.config: packed rows do not see each other under them. Other
kernels of FlashAttention take the lengths of the rows, too."""
OLD_KEYS = (
    "xformers_attention",
    "sage_attention",
    "flex_attention",
    "flash_attention",
    "sdp_attention",
    "eager_attention",
)
"""Earlier spellings of such an attention."""


def packed_rows_that_see_each_other(run: RunFacts) -> Iterator[Finding]:
    """With sample_packing, each row has to be kept apart from those before it in the same sequence; not every attention
    does so."""
    config = run.axolotl
    if not config.get("sample_packing") or config.get("diffusion_lm") or any(config.get(key) for key in OLD_KEYS):
        return
    attention = config.get("attn_implementation")
    if attention is not None and (_base(str(attention)) in APART or "flash" in str(attention)):
        return
    seen = "attn_implementation is not set" if attention is None else f"under attn_implementation={attention}"
    yield warning(
        "sample_packing",
        True,
        f"{seen}, so that Axolotl does not keep packed rows apart: each row is trained with those before it in view",
        "Set attn_implementation=flash_attention_2 (or sdpa).",
        PACKING,
    )


def _base(attention: str) -> str:
    """Without a kernel's revision and name, as Axolotl compares it."""
    return attention.split(":", 1)[0].split("@", 1)[0].strip()


RULES = (packed_rows_that_see_each_other,)
