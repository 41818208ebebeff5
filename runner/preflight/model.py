"""What is known of the base model here: the folder that should hold it, and how long a sequence it was made for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from runner.preflight.findings import Finding, error, warning
from runner.preflight.values import number
from runner.types import ModelFacts

TARGETS = ("lora_target_linear", "lora_target_modules", "lora_target_parameters")
LONGER = ("overrides_of_model_config", "model_config", "use_pose")
"""Keys with which a config makes a model's context longer, so that nothing can be said here."""


def model_findings(axolotl: Mapping[str, Any], facts: ModelFacts | None) -> Iterator[Finding]:
    for key, needed in (("base_model", "config.json"), ("lora_model_dir", "adapter_config.json")):
        folder = _folder(axolotl.get(key))
        if folder is not None and not (folder / needed).is_file():
            yield error(key, axolotl[key], f"the folder has no {needed}, so it holds no {_kind(key)}")
    yield from _context(axolotl, facts)
    if axolotl.get("adapter") in ("lora", "qlora"):
        yield from _adapter(axolotl)


def _kind(key: str) -> str:
    return "model" if key == "base_model" else "adapter"


def _context(axolotl: Mapping[str, Any], facts: ModelFacts | None) -> Iterator[Finding]:
    context, source = (facts.context, facts.source) if facts else (_own_context(axolotl.get("base_model")), "")
    asked = number(axolotl.get("sequence_len"))
    if context and asked and asked > context and not any(axolotl.get(key) for key in LONGER):
        yield warning(
            "sequence_len",
            axolotl["sequence_len"],
            f"{axolotl.get('base_model')} was made for {context} positions",
            f"Set sequence_len={context}, or say how it is stretched (overrides_of_model_config).",
            source,
        )


def _adapter(axolotl: Mapping[str, Any]) -> Iterator[Finding]:
    """What PEFT cannot do without, and finds out when the model has been loaded."""
    if axolotl.get("lora_model_dir"):
        return  # the adapter there says it
    for key in ("lora_r", "lora_alpha"):
        if axolotl.get(key) is None:
            yield error(key, None, f"adapter={axolotl['adapter']} needs one", f"Set {key}=16.")
    if not any(axolotl.get(key) for key in TARGETS):
        yield error(
            TARGETS[0],
            axolotl.get(TARGETS[0]),
            f"adapter={axolotl['adapter']} has no layers to work on; expected one of {', '.join(TARGETS)}",
            f"Set {TARGETS[0]}=true.",
        )


def _own_context(base_model: Any) -> int | None:
    folder = _folder(base_model)
    if folder is None:
        return None
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    known = config.get("max_position_embeddings") if isinstance(config, dict) else None
    return known if isinstance(known, int) else None


def _folder(name: Any) -> Path | None:
    path = Path(str(name or "")).expanduser()
    return path if isinstance(name, str) and path.is_dir() else None
