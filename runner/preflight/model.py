"""Problems with the base model or adapter: its folder, the adapter's settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from runner.preflight.findings import Finding, error

TARGETS = ("lora_target_linear", "lora_target_modules", "lora_target_parameters")


def model_findings(axolotl: Mapping[str, Any]) -> Iterator[Finding]:
    for key, needed in (("base_model", "config.json"), ("lora_model_dir", "adapter_config.json")):
        folder = _folder(axolotl.get(key))
        if folder is not None and not (folder / needed).is_file():
            yield error(key, axolotl[key], f"the folder has no {needed}, so it does not contain a {_kind(key)}")
    if axolotl.get("adapter") in ("lora", "qlora"):
        yield from _adapter(axolotl)


def _kind(key: str) -> str:
    return "model" if key == "base_model" else "LoRA adapter"


def _adapter(axolotl: Mapping[str, Any]) -> Iterator[Finding]:
    """Settings that PEFT needs, but checks only after the model is loaded."""
    if axolotl.get("lora_model_dir"):
        return  # the adapter in this folder has its own settings
    for key in ("lora_r", "lora_alpha"):
        if axolotl.get(key) is None:
            yield error(key, None, f"adapter={axolotl['adapter']} needs a value", f"Set {key}=16.")
    if not any(axolotl.get(key) for key in TARGETS):
        yield error(
            TARGETS[0],
            axolotl.get(TARGETS[0]),
            f"adapter={axolotl['adapter']} has no target layers; expected one of {', '.join(TARGETS)}",
            f"Set {TARGETS[0]}=true.",
        )


def _folder(name: Any) -> Path | None:
    if not isinstance(name, str) or not name:  # an empty text is not the current folder: Axolotl takes it for nothing
        return None
    path = Path(name).expanduser()
    return path if path.is_dir() else None
