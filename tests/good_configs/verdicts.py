"""Axolotl's own verdict on config files, run by the trainer's Python: `verdicts.py FILE...`, a JSON object on stdout.

`verdicts`: for each file null, or the error's text. `parts`: the classes of the schema, with their keys. A config is
read as `axolotl train` reads it, and checked in one process with those that have the same plugins, since plugins stay
registered. Each such process builds the schema once. The schema gets the capabilities of eight H100s, so no GPU is
needed.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

H100 = {"bf16": True, "fp8": True, "tf32": True, "n_gpu": 8, "n_node": 1, "compute_capability": "sm_90"}


def read(path: str) -> Any:
    import yaml
    from axolotl.utils.dict import DictDefault

    with open(path, encoding="utf-8") as file:
        return DictDefault(yaml.safe_load(file))


def judge(config: Any) -> str | None:
    import torch
    from axolotl.cli.config import prepare_plugins
    from axolotl.utils.config import validate_config

    versions = {"torch_version": torch.__version__.partition("+")[0]}
    try:
        prepare_plugins(config)
        validate_config(config, capabilities=dict(H100), env_capabilities=versions)
    except Exception as error:  # what Axolotl raises is the answer
        traceback.print_exc()
        return f"{type(error).__name__}: {error}"
    return None


def in_a_child(configs: Mapping[str, Any]) -> dict[str, str | None]:
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.close(reader)
        with os.fdopen(writer, "w") as pipe:
            json.dump({path: judge(config) for path, config in configs.items()}, pipe)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        said = pipe.read()
    os.wait()
    verdicts: dict[str, str | None] = json.loads(said) if said else dict.fromkeys(configs, "their process died")
    return verdicts


def by_plugins(paths: Sequence[str]) -> list[dict[str, Any]]:
    """The configs, in groups of those with the same plugins."""
    groups: dict[tuple[str, ...], dict[str, Any]] = {}
    for path in paths:
        config = read(path)
        groups.setdefault(tuple(config.get("plugins") or ()), {})[path] = config
    return list(groups.values())


def parts() -> dict[str, list[str]]:
    from axolotl.utils.schemas.config import AxolotlInputConfig

    classes = [kind for kind in AxolotlInputConfig.__bases__ if getattr(kind, "model_fields", None)]
    return {kind.__name__: sorted(field.alias or name for name, field in kind.model_fields.items()) for kind in classes}


if __name__ == "__main__":
    import axolotl.cli.config  # once, before the forks
    import axolotl.utils.config  # noqa: F401

    sys.path.append(str(Path(__file__).resolve().parents[2]))
    from modal_app.patches.apply import apply_schema_patches

    apply_schema_patches()

    found = {path: error for group in by_plugins(sys.argv[1:]) for path, error in in_a_child(group).items()}
    sys.stdout.write("\n" + json.dumps({"verdicts": found, "parts": parts()}))
