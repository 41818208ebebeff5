"""Does every import that a config names resolve in this Python? Runs in the trainer's Python, for which the answer
holds.

Plugins, reward functions, trainer classes, dataset formats, chat templates, and packages that Axolotl imports for a
key. Where Axolotl would go on after a failed import and report something else (a reward file with a missing import
becomes the name of a model on the hub), the import's own error is given.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import inspect
import os
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from modal_app.oneshot.processors import processor_problems
from modal_app.oneshot.user_modules import MISSING, attribute, failure, load, problem

Problem = dict[str, Any]
PREFERENCES = {"orpo": "orpo", "kto": "kto", "ebft": "ebft"}
"""`rl` -> the package of Axolotl's own formats; `dpo` for all others."""
HANDLED_BY_PREFIX = ("bradley_terry", "stepwise_supervised", "_synthetic")
TEMPLATE = "chat_template_jinja"
FALLBACK = "tokenizer_default_fallback_"


def import_problems(config: Mapping[str, Any]) -> Iterator[Problem]:
    """`plugins` of the config are registered already."""
    yield from _rewards(config)
    for at in ("trl.rollout_func", "trainer_cls"):
        name = _value(config, at)
        if isinstance(name, str) and "." in name:
            yield from attribute(at, name)
    for key in ("datasets", "test_datasets"):
        listed = config.get(key)
        for index, entry in enumerate(listed if isinstance(listed, list) else ()):
            if isinstance(entry, Mapping):
                yield from _format(f"{key}.{index}.type", entry.get("type"), config)
                yield from _template(f"{key}.{index}.", entry)
    yield from _template("", config)
    yield from _packages(config)
    yield from processor_problems(config)
    yield from _required_by_plugins(config)


def shadowing_problems(folder: Path) -> Iterator[Problem]:
    """Modules of the user that would be imported in place of a package of the trainer's."""
    installed = list({sysconfig.get_path(name) for name in ("purelib", "platlib")})
    for path in sorted(folder.iterdir()):
        spec = importlib.machinery.PathFinder.find_spec(path.stem, installed)
        if spec is not None and spec.origin is not None and not path.name.startswith("__pycache__"):
            message = f"the trainer has a package of this name ({spec.origin}), which the file would hide; rename it"
            yield problem(["user_code"], f"{path.name}: {message}")


def _rewards(config: Mapping[str, Any]) -> Iterator[Problem]:
    listed = _value(config, "trl.reward_funcs")
    for index, name in enumerate(listed if isinstance(listed, list) else ()):
        at = f"trl.reward_funcs.{index}"
        if not isinstance(name, str) or "/" in name or os.path.isdir(name):
            continue  # a reward model
        found: list[Any] = []
        yield from attribute(at, name, found)
        if found and len(inspect.signature(found[0]).parameters) < 2:
            yield problem([at], f"{name} needs at least two parameters: prompts and completions")


def _format(at: str, name: Any, config: Mapping[str, Any]) -> Iterator[Problem]:
    """As axolotl.prompt_strategies loads it: `load` there, and `base.load` for preference data."""
    if not isinstance(name, str) or not name:  # rows without a format are tokens already
        return
    if config.get("rl"):
        yield from _preference_format(at, name, config)
    elif not config.get("skip_prepare_dataset") and not name.startswith(HANDLED_BY_PREFIX):
        yield from _supervised_format(at, name)


def _supervised_format(at: str, name: str) -> Iterator[Problem]:
    from axolotl.utils.data.wrappers import DATASET_HANDLERS

    module, _, last = name.rpartition(".")
    function = last if last == "load" or last.startswith("load_") else "load"
    own = module if function == last else name
    if module and function != last:
        error = load(f".{last}", module)
        if error is None:
            yield from _has_function(at, name, f"{module}.{last}", function)
            return
        if not _is_absent(error, name):
            yield failure(at, name, error)
            return
    error = load(f".{own}", "axolotl.prompt_strategies")
    if error is None:
        yield from _has_function(at, name, f"axolotl.prompt_strategies.{own}", function)
    elif not _is_absent(error, f"axolotl.prompt_strategies.{own}"):
        yield failure(at, name, error)
    elif name.partition(":")[0] not in DATASET_HANDLERS:
        yield problem([at], _no_format(name, "PACKAGE.MODULE, with a function `load`"))


def _preference_format(at: str, name: str, config: Mapping[str, Any]) -> Iterator[Problem]:
    names = (name if "." in name else f"{name}.default").split(".")
    *parents, module, function = names
    error = load(module, ".".join(parents))
    if error is None:
        yield from _has_function(at, name, module, function)
        return
    if not _is_absent(error, module):
        yield failure(at, name, error)
        return
    package = f"axolotl.prompt_strategies.{PREFERENCES.get(str(config['rl']), 'dpo')}"
    inside = f"{package}.{'.'.join(names[:-1])}"
    error = load(inside)
    if error is None:
        yield from _has_function(at, name, inside, function)
    elif _is_absent(error, inside):
        yield problem([at], _no_format(name, "MODULE.FUNCTION, without a package"))
    else:
        yield failure(at, name, error)


def _no_format(name: str, expected: str) -> str:
    return f"there is no dataset format {name}; expected one of Axolotl's, or {expected}"


def _has_function(at: str, name: str, module: str, function: str) -> Iterator[Problem]:
    if not hasattr(sys.modules[module], function):
        yield problem([at], f"{name}: the module {module} has no function {function}")


def _is_absent(error: Exception, dotted: str) -> bool:
    """Whether the module itself does not exist, and not one that it imports."""
    return isinstance(error, ModuleNotFoundError) and (
        error.name is None or dotted == error.name or dotted.startswith(f"{error.name}.")
    )


def _template(at: str, holder: Mapping[str, Any]) -> Iterator[Problem]:
    text, name = holder.get(TEMPLATE), holder.get("chat_template")
    if isinstance(text, str):
        from jinja2 import TemplateError
        from transformers.utils.chat_template_utils import _compile_jinja_template

        try:
            path = Path(text).expanduser()
            _compile_jinja_template(path.read_text(encoding="utf-8") if os.path.isfile(path) else text)
        except (TemplateError, UnicodeDecodeError) as error:
            yield problem([f"{at}{TEMPLATE}"], f"this is not a Jinja template: {error}")
    if isinstance(name, str) and name.startswith(FALLBACK):
        from axolotl.utils.chat_templates import get_chat_template

        try:
            get_chat_template(name.removeprefix(FALLBACK))
        except ValueError as error:
            yield problem([f"{at}chat_template"], str(error))


SEQUENCE_PARALLEL = ("context_parallel_size", "sequence_parallel_degree")
"""The key and its earlier name. Under DeepSpeed, Axolotl leaves this to DeepSpeed (integrations.context_parallel)."""

PACKAGES: Mapping[str, Mapping[str, str]] = {
    "optimizer": {
        "optimi_adamw": "optimi",
        "stable_adamw": "optimi",
        "came_pytorch": "came_pytorch",
        "scao": "scao",
        "polora": "polora",
        "q_galore_adamw8bit": "q_galore_torch",
        "grokadamw": "grokadamw",
        "lomo": "lomo_optim",
        "adalomo": "lomo_optim",
        "adamw_anyprecision": "torchdistx",
        **dict.fromkeys(("flash_adam", "flash_adamw", "flash_lion", "flash_sgd", "flash_sgdw"), "flashoptim"),
        **dict.fromkeys(("apollo_adamw", "apollo_adamw_layerwise"), "apollo_torch"),
        **{
            f"galore_{one}{layer}": "galore_torch"
            for one in ("adamw", "adamw_8bit", "adafactor")
            for layer in ("", "_layerwise")
        },
        **dict.fromkeys(("schedule_free_adamw", "schedule_free_radam", "schedule_free_sgd"), "schedulefree"),
    },
    "attn_implementation": {"xformers": "xformers", "sage": "sageattention"},
    "xformers_attention": {"true": "xformers"},
    "sage_attention": {"true": "sageattention"},
    "use_ray": {"true": "ray"},
    "trl.use_vllm": {"true": "vllm"},
    "use_onebitllms": {"true": "onebitllms"},
    "use_swanlab": {"true": "swanlab"},
    "dense_mixer": {"true": "densemixer"},
    "gptq": {"true": "gptqmodel"},
    **{key: {"several": "ringmaster"} for key in SEQUENCE_PARALLEL},
}
"""Key -> value -> the module that Axolotl imports for it only when the run has loaded its model."""


def _packages(config: Mapping[str, Any]) -> Iterator[Problem]:
    for key, modules in PACKAGES.items():
        if key in SEQUENCE_PARALLEL and config.get("deepspeed"):
            continue
        value = _value(config, key)
        several = "several" if isinstance(value, int) and value > 1 else ""
        module = modules.get(several or (str(value).lower() if isinstance(value, bool) else str(value)))
        if module is not None and importlib.util.find_spec(module) is None:
            yield problem([key], f"it needs the package {module}, which the trainer does not have", MISSING, module)


def _required_by_plugins(config: Mapping[str, Any]) -> Iterator[Problem]:
    """What a plugin requires only once the run has loaded its model, by the plugin's own check."""
    from axolotl.integrations.base import PluginManager

    for plugin in PluginManager.get_instance().plugins.values():
        check = getattr(plugin, "_check_requirements", None)
        if check is None or config.get("cut_cross_entropy") is False:
            continue
        try:
            check()
        except ImportError as error:
            package = type(plugin).__module__.rpartition(".")[2]
            yield problem(["plugins"], " ".join(str(error).split()), MISSING, package)


def _value(config: Mapping[str, Any], at: str) -> Any:
    node: Any = config
    for part in at.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    return node
