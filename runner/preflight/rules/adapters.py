"""Rules about LoRA and QLoRA: adapters that are not trained, or that the model has no place for."""

from __future__ import annotations

from collections.abc import Iterator

from runner.preflight.findings import Finding, warning
from runner.preflight.rules.run_facts import RunFacts

AXOLOTL_LORA = "https://docs.axolotl.ai/docs/config-reference.html"
SIZES = ("lora_r", "lora_alpha", "lora_target_linear", "lora_target_modules")


def lora_without_adapter(run: RunFacts) -> Iterator[Finding]:
    """`lora_r` and the like have no effect until `adapter` is set: Axolotl then trains all weights."""
    keys = [
        key for key in ("lora_r", "lora_alpha", "lora_target_linear", "lora_target_modules") if run.axolotl.get(key)
    ]
    if keys and not run.axolotl.get("adapter"):
        yield warning(
            keys[0],
            run.axolotl[keys[0]],
            "without adapter=lora Axolotl ignores it and trains all weights of the model",
            f"Set adapter=lora, or remove {', '.join(keys)}.",
            AXOLOTL_LORA,
        )


RULES = (lora_without_adapter,)
