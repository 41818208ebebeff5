"""The heavy imports of the trainer, in one place: most of the time of a short run, paid once when they are shared."""

from __future__ import annotations

import gc
import importlib
from collections.abc import Sequence
from typing import Any

from modal_app.step import StepKind

PREPROCESS = ("axolotl.cli.preprocess", "modal_app.plugin", "modal_app.preprocess")
VALIDATE = ("axolotl.utils.config", "axolotl.integrations.base")
TRAIN = (
    "axolotl.cli.train",
    "axolotl.cli.config",
    "axolotl.cli.checks",
    "axolotl.train",
    "axolotl.loaders",
    "axolotl.core.builders",
    "axolotl.core.trainers",
    "axolotl.common.datasets",
    "axolotl.utils.trainer",
    "axolotl.utils.callbacks",
    "axolotl.integrations.context_parallel",
    "axolotl.integrations.expert_parallel",
    "axolotl.prompt_strategies.chat_template",
    "modal_app.plugin",
)
EVERYTHING = (
    *PREPROCESS,
    *TRAIN,
    "trl",
    "peft",
    "wandb",
    "transformers.models.llama.modeling_llama",
    "torch._dynamo",
    "torch.distributed",
)


def load(modules: Sequence[str]) -> None:
    """Import them, then take all that is alive out of the garbage collector's sight.

    Axolotl collects garbage about seven times a run; each would walk the heap of 6000 modules, and in a forked child
    copy it by doing so.
    """
    for module in modules:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()


def memoise_schema() -> None:
    """Keep the schema that Axolotl would build anew from the same plugins at every validation, at 80 ms each."""
    import axolotl.utils.config as place
    from axolotl.integrations.base import PluginManager

    build = place.merge_input_args
    built: dict[tuple[str, ...], Any] = {}

    def merge_input_args() -> Any:
        plugins = tuple(PluginManager.get_instance().get_input_args())
        if plugins not in built:
            built[plugins] = build()
        return built[plugins]

    place.merge_input_args = merge_input_args
    merge_input_args()


def for_kind(kind: StepKind) -> Sequence[str]:
    match kind:
        case StepKind.PREPROCESS:
            return PREPROCESS
        case StepKind.TRAIN:
            return TRAIN
