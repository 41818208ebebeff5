"""Rules about number formats: fp32 or fp16 where the card and the model are made for bf16."""

from __future__ import annotations

from collections.abc import Iterator

from runner.config.gpus import GPUS
from runner.preflight.findings import Finding, warning
from runner.preflight.rules.run_facts import RunFacts, is_off, is_on

MIXED = "https://docs.nvidia.com/deeplearning/performance/mixed-precision-training/index.html"
BF16 = "https://arxiv.org/abs/1905.12322"
"""bf16 has the range of fp32, so that it needs no loss scaling."""
SMALL = 300_000_000
"""Fewer parameters train quickly in any format."""
MADE_IN_BF16 = frozenset(
    """
    gemma gemma2 gemma3 gemma3_text qwen2 qwen3 qwen2_moe qwen3_moe phi3 mistral mixtral olmo2 olmo3 smollm3 granite
    """.split()
)
"""Architectures whose published models all were; of llama, only the third generation, by its vocabulary."""
LLAMA3_VOCABULARY = 128_256
SIXTEEN_BITS = ("bf16", "bfloat16", "fp16", "float16", "fp8")


def fp32_on_a_card_for_bf16(run: RunFacts) -> Iterator[Finding]:
    """Without bf16 and fp16, a model trains in fp32: in twice the memory, and at a fraction of the speed."""
    stated = is_off(run.axolotl.get("bf16")) or is_off(run.axolotl.get("bfloat16"))
    if not stated or any(is_on(run.axolotl.get(key)) for key in SIXTEEN_BITS) or not _has_bf16(run):
        return
    if run.parameters is not None and run.parameters >= SMALL and not run.axolotl.get("gptq"):
        yield warning(
            "bf16",
            False,
            f"{run.parameters / 1e9:.3g} billion parameters then train in fp32, at {run.parameters * 4 / 1e9:.2g} GB "
            f"instead of {run.parameters * 2 / 1e9:.2g} GB for the weights, and at half the speed of bf16 "
            f"or less, on a card (gpu={run.experiment.gpu.type}) that is paid for its speed in bf16",
            "Set bf16=true (or bf16=auto).",
            MIXED,
        )


def fp16_for_a_model_made_in_bf16(run: RunFacts) -> Iterator[Finding]:
    """A model that was trained in bf16 may have values that fp16 cannot hold; with bf16 nothing overflows."""
    if not is_on(run.axolotl.get("fp16")) or run.axolotl.get("bf16") is True or run.axolotl.get("gptq"):
        return
    # With reinforcement learning, fp16 may be on purpose: its finer steps bring training and generation closer.
    if _made_in_bf16(run) and _has_bf16(run) and not run.axolotl.get("rl"):
        yield warning(
            "fp16",
            True,
            f"{run.axolotl.get('base_model')} was made in bf16, whose range is that of fp32 (3e38); fp16 ends at "
            "65504, so activations may overflow and steps are skipped",
            "Set bf16=true and fp16=false.",
            BF16,
        )


def _made_in_bf16(run: RunFacts) -> bool:
    kind = run.architecture.model_type if run.architecture is not None else ""
    if kind == "llama":
        return run.model is not None and run.model.vocabulary >= LLAMA3_VOCABULARY
    return kind in MADE_IN_BF16


def _has_bf16(run: RunFacts) -> bool:
    kind = GPUS.get(run.experiment.gpu.type)
    return kind is not None and kind.bf16


RULES = (fp32_on_a_card_for_bf16, fp16_for_a_model_made_in_bf16)
