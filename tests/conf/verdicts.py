"""Axolotl's own verdict on configs, run by the trainer's Python: JSON on stdin, JSON on stdout's last line.

Each entry of the list is {"axolotl": the config, "capabilities": what its GPUs can do}; no GPU is needed. Each verdict
is null, or the error's text. With them come names that a config may take: chat templates and model classes. The schema
is built once for each list of plugins, which tests/modal_app/test_validate.py compares with Axolotl's own way.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def verdict(config: dict[str, Any], capabilities: dict[str, Any]) -> str | None:
    import torch
    from axolotl.cli.config import prepare_plugins
    from axolotl.utils.config import validate_config
    from axolotl.utils.dict import DictDefault

    try:
        prepare_plugins(DictDefault(config))
        validate_config(
            DictDefault(config),
            capabilities=capabilities,
            env_capabilities={"torch_version": torch.__version__.partition("+")[0]},
        )
    except (ValueError, ImportError) as error:
        return str(error)
    return None


def deepspeed_problem(config: dict[str, Any]) -> str | None:
    """The verdict of DeepSpeed's own config class, with the values that accelerate would write for each `auto`."""
    from deepspeed.runtime.config import DeepSpeedConfig

    settings = _filled_in(config["deepspeed"])
    settings["train_micro_batch_size_per_gpu"] = config["micro_batch_size"]
    try:
        DeepSpeedConfig(settings)
    except (ValueError, AssertionError) as error:
        return str(error)
    return None


def _filled_in(settings: dict[str, Any]) -> dict[str, Any]:
    """The config without its `auto`s: an absent key has DeepSpeed's own default, and a dtype that may be either is
    off."""
    kept = {key: value for key, value in settings.items() if value != "auto"}
    return {key: _filled_in(value) if isinstance(value, dict) else value for key, value in kept.items()}


def main() -> None:
    import transformers
    from axolotl.utils.schemas.enums import ChatTemplate

    sys.path.append(str(Path(__file__).resolve().parents[2]))
    from modal_app.patches.apply import apply_schema_patches

    apply_schema_patches()
    requested = json.load(sys.stdin)
    order = sorted(range(len(requested)), key=lambda index: bool(requested[index]["axolotl"].get("plugins")))
    verdicts: list[str | None] = [None] * len(requested)
    for index in order:  # those with plugins last, since a plugin stays registered
        config = requested[index]["axolotl"]
        verdicts[index] = verdict(config, requested[index]["capabilities"])
        if verdicts[index] is None and config.get("deepspeed"):
            verdicts[index] = deepspeed_problem(config)
    answer = {
        "verdicts": verdicts,
        "chat_templates": [template.value for template in ChatTemplate],
        "models": [name for name in dir(transformers) if name.endswith(("ForCausalLM", "ForConditionalGeneration"))],
    }
    sys.stdout.write("\n" + json.dumps(answer))


if __name__ == "__main__":
    main()
