"""The class of a model by its name, from the shipped files of conf/model. A chosen file sets `model_type` itself."""

from __future__ import annotations

import functools
import re

from runner.config.shipped import shipped_root

NAMED = re.compile(r"^\s*base_model:\s*[\"']?([^\s\"'#]+)", re.MULTILINE)
CLASS = re.compile(r"^\s*(?:model_type|type_of_model):\s*[\"']?(\w+)", re.MULTILINE)


def class_named(base_model: str) -> str | None:
    """`LlamaForCausalLM`, say; None for a model that no file describes."""
    return _by_name().get(base_model.lower())


@functools.cache
def _by_name() -> dict[str, str]:
    """Read as text, since parsing all files takes longer than planning a run."""
    found: dict[str, str] = {}
    for file in sorted((shipped_root() / "conf" / "model").glob("*.yaml")):
        text = file.read_text(encoding="utf-8")
        if known := CLASS.search(text):
            found |= {name.lower(): known[1] for name in NAMED.findall(text)}
    return found
