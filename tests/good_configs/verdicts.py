"""Axolotl's own verdict on config files, run by the trainer's Python: `verdicts.py FILE...`, a JSON object on stdout.

`verdicts`: for each file null, or the error's text. `parts`: the classes of the schema, with their keys. A config is
read as `axolotl train` reads it, and checked in a process of its own, since plugins stay registered. The schema gets
the capabilities of eight H100s, so no GPU is needed. The schema without plugins is built once, for all of them.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path

H100 = {"bf16": True, "fp8": True, "tf32": True, "n_gpu": 8, "n_node": 1, "compute_capability": "sm_90"}


def judge(path: str) -> str | None:
    import torch
    import yaml
    from axolotl.cli.config import prepare_plugins
    from axolotl.utils.config import validate_config
    from axolotl.utils.dict import DictDefault

    with open(path, encoding="utf-8") as file:
        config = DictDefault(yaml.safe_load(file))
    versions = {"torch_version": torch.__version__.partition("+")[0]}
    try:
        prepare_plugins(config)
        validate_config(config, capabilities=dict(H100), env_capabilities=versions)
    except Exception as error:  # what Axolotl raises is the answer
        traceback.print_exc()
        return f"{type(error).__name__}: {error}"
    return None


def in_a_child(path: str) -> str | None:
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.close(reader)
        with os.fdopen(writer, "w") as pipe:
            json.dump(judge(path), pipe)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        said = pipe.read()
    os.wait()
    verdict: str | None = json.loads(said) if said else "its process died"
    return verdict


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

    found = {path: in_a_child(path) for path in sys.argv[1:]}
    sys.stdout.write("\n" + json.dumps({"verdicts": found, "parts": parts()}))
