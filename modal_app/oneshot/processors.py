"""Which packages the processor of a model with pictures, videos or sound needs. Runs in the trainer's Python.

A processor is loaded from the hub's files when the run starts, and then fails for want of a package. Which processor
that is follows from `processor_type`, the model's own config.json if it is a folder, or the chat template.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from modal_app.oneshot.user_modules import MISSING, problem

ANY = "AutoProcessor"


def processor_problems(config: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """None for a processor that cannot be known here."""
    named = config.get("processor_type")
    if not isinstance(named, str):
        return
    import transformers
    from transformers.models.auto.auto_mappings import PROCESSOR_MAPPING_NAMES, VIDEO_PROCESSOR_MAPPING_NAMES

    of_type = PROCESSOR_MAPPING_NAMES.get(_model_type(config)) if named == ANY else named
    processor: Any = getattr(transformers, of_type, None) if of_type else None
    if not hasattr(processor, "get_attributes"):
        return
    types = [one for one, name in PROCESSOR_MAPPING_NAMES.items() if name == of_type]
    with_videos = "video_processor" in processor.get_attributes() and any(
        one in VIDEO_PROCESSOR_MAPPING_NAMES for one in types
    )
    # Of its video processors, transformers has none without torchvision. A processor reads sound with soundfile.
    reads_sound = hasattr(inspect.getmodule(processor), "is_soundfile_available")
    for package, is_needed in (("torchvision", with_videos), ("soundfile", reads_sound)):
        if is_needed and importlib.util.find_spec(package) is None:
            message = f"{of_type} needs the package {package}, which the trainer does not have"
            yield problem(["processor_type"], message, MISSING, package)


def _model_type(config: Mapping[str, Any]) -> str:
    """As transformers calls it; the name of something else, or empty, if it is unknown."""
    own = Path(str(config.get("base_model"))) / "config.json"
    if own.is_file():
        return str(json.loads(own.read_text(encoding="utf-8")).get("model_type"))
    return str(config.get("chat_template") or "")
