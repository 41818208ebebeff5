"""Imitates other versions of installed libraries: OTHER_VERSION names what is missing in them. Python imports it
first."""

from __future__ import annotations

import builtins
import importlib.abc
import importlib.util
import os
import sys
from typing import Any


def without_deepspeed_check(module: Any) -> None:
    """accelerate uses another name; here its functions find the old one elsewhere."""
    vars(builtins)["is_deepspeed_available"] = module.is_deepspeed_available
    del module.is_deepspeed_available


def without_filter(module: Any) -> None:
    """Training arguments without the filter."""

    def gone(self: object) -> bool:
        raise AttributeError("logging_nan_inf_filter")

    begin = module.TrainingArguments.__post_init__

    def begin_without(self: Any) -> None:
        begin(self)
        vars(self).pop("logging_nan_inf_filter", None)
        type(self).logging_nan_inf_filter = property(gone)

    module.TrainingArguments.__post_init__ = begin_without


GONE = {
    "accelerate.utils.other": without_deepspeed_check,
    "transformers.training_args": without_filter,
}


class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != os.environ.get("OTHER_VERSION"):
            return None
        sys.meta_path.remove(self)
        spec: Any = importlib.util.find_spec(name)
        load = spec.loader.exec_module

        def load_without(module: Any) -> None:
            load(module)
            GONE[name](module)

        spec.loader.exec_module = load_without
        return spec


sys.meta_path.insert(0, Finder())
