"""Keys that a run should not have: unknown to Axolotl, deprecated, set by axosweep itself, or with a secret value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from modal_app.store.redact import is_secret
from runner.config.fields import axolotl_fields, unknown_paths
from runner.config.numbers import is_integer
from runner.keys.identity import is_address
from runner.preflight.findings import Finding, error, warning

RENAMED = {
    "noisy_embedding_alpha": "neftune_noise_alpha",
    "sequence_parallel_degree": "context_parallel_size",
    "flash_attn_d512": "large_head_attention",
}
"""Keys that Axolotl 0.21 replaces without a message, or only next to another one. Its messages about others are in the
generated list of fields."""

OLD = "deprecated in Axolotl"

RENAMED_VALUES = {
    ("gradient_checkpointing", "offload"): "activation_offloading=true with gradient_checkpointing=true",
    ("gradient_checkpointing", "offload_disk"): "activation_offloading=disk with gradient_checkpointing=true",
    ("rl", "ipo"): "rl=dpo with dpo_loss_type=[ipo]",
}

RENAMED_IN_DATASETS = {
    "message_field_role": "message_property_mappings.role",
    "message_field_content": "message_property_mappings.content",
}


def key_findings(axolotl: Mapping[str, Any]) -> Iterator[Finding]:
    """Findings about keys, whatever their values are."""
    for key, sentence in unknown_paths(axolotl, axolotl_fields()):
        yield error(key, "(ignored by Axolotl)", sentence)
    yield from _owned(axolotl)
    yield from _deprecated(axolotl)
    if not is_integer(axolotl.get("seed")):
        yield error(
            "seed",
            axolotl.get("seed"),
            "expected a whole number: without one Axolotl shuffles differently each time, and a run cannot be repeated",
            "Write seed=42.",
        )


def _owned(axolotl: Mapping[str, Any]) -> Iterator[Finding]:
    """Keys that would be ignored, would change a run without changing its key, or would be stored in plain text."""
    for key in axolotl:
        if is_address(key) and axolotl[key]:
            yield error(
                key,
                "(set by axosweep)",
                "axosweep sets where a run writes and what it reports to, so this would not reach Axolotl",
                _instead(key),
            )
    if axolotl.get("resume_from_checkpoint"):
        yield error(
            "resume_from_checkpoint",
            axolotl["resume_from_checkpoint"],
            "a run resumes from its own newest checkpoint by itself, and no key covers another checkpoint",
            "Remove it (~resume_from_checkpoint). To continue from a run's checkpoint, use from=RUN@STEP; from an "
            "adapter, lora_model_dir=DIR.",
        )
    for key in secrets(axolotl):
        if not is_address(key):
            yield error(
                key,
                "(a secret)",
                "a run's config is stored on disk in plain text",
                "Remove it, and set the environment variable that the service reads.",
            )


def _instead(key: str) -> str:
    if key.startswith("wandb_") or key == "use_wandb":
        return f"Remove it (~{key}); tracking.mode, .project, .entity and .tags set up W&B."
    if key.startswith("hub_") or key == "push_to_hub":
        return f"Remove it (~{key}). Once the run has finished: axosweep push RUN OWNER/NAME."
    return f"Remove it (~{key})."


def secrets(node: Any, before: str = "") -> Iterator[str]:
    """Dotted names of the keys that hold a secret. Their values are never shown."""
    items = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ()
    for name, value in items:
        if isinstance(value, str) and value and is_secret(str(name)):
            yield f"{before}{name}"
        yield from secrets(value, f"{before}{name}.")


def without_secrets(node: Any, name: str = "") -> Any:
    """The same, with `(a secret)` in the place of each secret."""
    match node:
        case Mapping():
            return {key: without_secrets(value, str(key)) for key, value in node.items()}
        case list():
            return [without_secrets(value) for value in node]
        case str() if node and is_secret(name):
            return "(a secret)"
        case _:
            return node


def _deprecated(axolotl: Mapping[str, Any]) -> Iterator[Finding]:
    fields, advice = axolotl_fields().everywhere, axolotl_fields().advice
    for key, value in axolotl.items():
        if value is None or value is False:
            continue
        if key in RENAMED:
            yield warning(key, value, OLD, f"Its name is now {RENAMED[key]}.")
        elif key in fields and fields[key].deprecated:
            yield warning(key, value, OLD, fields[key].deprecated)
        elif key in fields and key in advice:
            yield (error if advice[key].refused else warning)(key, value, OLD, f"Axolotl says: {advice[key].text}")
        elif isinstance(value, str) and (key, value) in RENAMED_VALUES:
            yield warning(key, value, OLD, f"Write {RENAMED_VALUES[key, value]}.")
    datasets = axolotl.get("datasets")
    for index, dataset in enumerate(datasets if isinstance(datasets, list) else ()):
        for key in RENAMED_IN_DATASETS if isinstance(dataset, Mapping) else ():
            if key in dataset:
                yield warning(
                    f"datasets.{index}.{key}",
                    dataset[key],
                    OLD,
                    f"Its name is now {RENAMED_IN_DATASETS[key]}.",
                )
