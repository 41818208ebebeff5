"""Write the names and types of every key that the installed Axolotl knows, as JSON.

    .axosweep/trainer/bin/python modal_app/trainer/list_fields.py runner/config/axolotl_fields.json

The launcher's environment has no Axolotl; `runner.config.fields` reads this file instead. Run it (`make fields`)
whenever the trainer's lock changes.
"""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import inspect
import json
import logging
import pkgutil
import re
import sys
import types
import typing
from enum import Enum
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo


def main(target: Path) -> None:
    """One key a line, so that a newer Axolotl shows as a readable diff."""
    listed = list_fields()
    sections = [f' "axolotl": {json.dumps(listed["axolotl"])}', _section("fields", listed["fields"], 1)]
    sections.append(_section("advice", listed["advice"], 1))
    for group in ("plugins", "models"):
        inner = ",\n".join(_section(name, listed[group][name], 2) for name in sorted(listed[group]))
        sections.append(f' "{group}": {{\n{inner}\n }}')
    target.write_text("{\n" + ",\n".join(sections) + "\n}\n", encoding="utf-8")


def _section(name: str, fields: dict[str, Any], depth: int) -> str:
    indent = " " * depth
    lines = ",\n".join(
        f"{indent} {json.dumps(key)}: {json.dumps(fields[key], sort_keys=True)}" for key in sorted(fields)
    )
    return f"{indent}{json.dumps(name)}: {{\n{lines}\n{indent}}}"


def list_fields() -> dict[str, Any]:
    """`fields` at the top, `models` nested below them, `plugins`: the keys each shipped plugin adds. `advice`:
    Axolotl's messages about keys that it has renamed or removed."""
    from axolotl.utils.schemas.config import AxolotlInputConfig

    models: dict[str, Any] = {}
    fields = _fields(AxolotlInputConfig, models)
    plugins = {name: _fields(arguments, models) for name, arguments in sorted(_plugins().items())}
    fields["optimizer"]["choices"] = _optimizers()
    fields["lr_scheduler"]["choices"] = _schedulers()
    models["SFTDataset"]["type"]["choices"] = _dataset_types()
    models["FSDPConfig"] |= _prefixed(models["FSDPConfig"])
    return {
        "axolotl": importlib.metadata.version("axolotl"),
        "fields": fields,
        "advice": _advice(fields) | _advice_below(models),
        "plugins": plugins,
        "models": models,
    }


# The schema accepts any text for these three. A wrong name fails only when it is used; for the optimizer and the
# scheduler, that is after the model has been loaded.


def _optimizers() -> list[str]:
    from axolotl.utils.schemas.enums import CustomSupportedOptimizers
    from transformers.training_args import OptimizerNames

    unhandled = {"ao_adamw_4bit", "ao_adamw_8bit"}  # in the enum, but refused by axolotl.core.builders.base
    return sorted({str(one.value) for kind in (OptimizerNames, CustomSupportedOptimizers) for one in kind} - unhandled)


def _schedulers() -> list[str]:
    """transformers' and the two that Axolotl adds (axolotl.core.builders.base)."""
    from transformers.trainer_utils import SchedulerType

    return sorted({*(str(one.value) for one in SchedulerType), "one_cycle", "rex"})


def _dataset_types() -> list[str]:
    """What a dataset's `type` may contain before its first dot or colon, except for the user's own modules."""
    import axolotl.prompt_strategies
    from axolotl.utils.data.wrappers import DATASET_HANDLERS

    modules = {entry.name for entry in pkgutil.iter_modules(axolotl.prompt_strategies.__path__)}
    return sorted({*DATASET_HANDLERS, *modules} - {"base", "jinja_template_analyzer"})


def _prefixed(fields: dict[str, Any]) -> dict[str, Any]:
    """Old names that a validator converts to the schema's: version, and each name with the prefix fsdp_."""
    old = {f"fsdp_{name}": name for name in fields if not name.startswith("fsdp_")} | {"version": "fsdp_version"}
    return {name: fields[new] | {"deprecated": f"Its name is now {new}."} for name, new in old.items()}


def _fields(model: type[BaseModel], models: dict[str, Any]) -> dict[str, Any]:
    return {name: _described(field, models) for name, field in model.model_fields.items()}


def _described(field: FieldInfo, models: dict[str, Any]) -> dict[str, Any]:
    """type: for people. alias: the name in a config. models, choices: the possible values.

    deprecated: Axolotl's own words. list: entries are numbered. open: keys of any name are allowed below it.
    """
    annotation = field.annotation
    found = list(_leaves(annotation))
    nested = [leaf for leaf in found if inspect.isclass(leaf) and issubclass(leaf, BaseModel)]
    for model in nested:
        _add(model, models)
    choices = [choice for leaf in found for choice in _choices(leaf)]
    described = {
        "type": _text(annotation),
        "alias": field.alias,
        "models": [model.__name__ for model in nested],
        "choices": choices,
        "list": any(typing.get_origin(part) in (list, tuple) for part in _parts(annotation)),
        "deprecated": field.deprecated if isinstance(field.deprecated, str) else None,
        "open": any(part in (dict, Any) or typing.get_origin(part) is dict for part in _parts(annotation)),
    }
    return {key: value for key, value in described.items() if value}


def _add(model: type[BaseModel], models: dict[str, Any]) -> None:
    if model.__name__ not in models:
        models[model.__name__] = {}  # before its fields: a model may nest itself
        models[model.__name__] = _fields(model, models)


def _parts(annotation: Any) -> list[Any]:
    """The members of a union, without Annotated's wrapping."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _parts(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return [part for member in typing.get_args(annotation) for part in _parts(member)]
    return [annotation]


def _leaves(annotation: Any) -> list[Any]:
    """Classes and literals anywhere inside, except below a dict, whose keys are the user's own."""
    leaves: list[Any] = []
    for part in _parts(annotation):
        if typing.get_origin(part) in (list, tuple):
            leaves += [leaf for inner in typing.get_args(part) for leaf in _leaves(inner)]
        else:
            leaves.append(part)
    return leaves


def _choices(leaf: Any) -> list[str]:
    if typing.get_origin(leaf) is typing.Literal:
        return [str(choice) for choice in typing.get_args(leaf)]
    if inspect.isclass(leaf) and issubclass(leaf, Enum) and issubclass(leaf, str):
        return [str(choice.value) for choice in leaf]
    return ["true", "false"] if leaf is bool else []


def _text(annotation: Any) -> str:
    parts = [part for part in _parts(annotation) if part is not types.NoneType]
    return " | ".join(dict.fromkeys(_name(part) for part in parts))


def _name(part: Any) -> str:
    origin, arguments = typing.get_origin(part), typing.get_args(part)
    if origin is typing.Literal:
        return " | ".join(str(argument) for argument in arguments)
    if origin is not None:
        return f"{origin.__name__}[{', '.join(_text(argument) for argument in arguments)}]"
    return getattr(part, "__name__", str(part))


# Keys of earlier versions. Axolotl has no list of them: its validators check some of them and name what to write
# instead. So every name in their source is tried in a config that is accepted without it.

PLAIN = {
    "base_model": "nobody/nothing",
    "datasets": [{"path": "nobody/nothing", "type": "alpaca"}],
    "learning_rate": 1e-4,
    "num_epochs": 1,
    "micro_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "max_steps": 1,
    "streaming": True,  # otherwise Axolotl's message is that pretraining_dataset needs it
}
TRIED: tuple[Any, ...] = (True, 2, 0.5, "x", ["x"], {"x": 1})
GPU = {"bf16": True, "fp8": True, "tf32": True, "n_gpu": 8, "n_node": 1, "compute_capability": "sm_90"}
OF_AN_OLD_KEY = re.compile(r"deprecat|no longer supported|been removed|superseded|FSDP1-only")
HAS_OLD_KEYS = {"fsdp_config": "FSDPConfig"}
"""Keys with others below them, some of which Axolotl has removed -> the model that lists what is there."""


def _advice(fields: dict[str, Any]) -> dict[str, Any]:
    """Key -> Axolotl's message about it, and whether that is a refusal. Keys that it still has are included only if
    they are old."""
    current = {name for key, field in fields.items() for name in (key, field.get("alias")) if name}
    found = {}
    for key in sorted((_names_in_validators() | current) - set(PLAIN)):
        tried = TRIED if key in current else TRIED[:1]
        reactions = [_reactions({**PLAIN, key: value}) for value in tried]
        about = [one for each in reactions for one in each.items() if re.search(rf"(?<![\w.]){key}(?!\w)", one[0])]
        old = [one for one in about if OF_AN_OLD_KEY.search(one[0])]
        if old and (key not in current or all(reactions)):  # otherwise, it is a value that is old
            says, refused = min(old, key=lambda one: len(one[0]))
            found[key] = {"says": says, "refused": refused}
    return found


def _advice_below(models: dict[str, Any]) -> dict[str, Any]:
    """The same for removed keys below another one, by their dotted names."""
    found = {}
    for key, model in HAS_OLD_KEYS.items():
        for name in sorted(_names_in_validators() - set(models[model])):
            about = [one for one in _reactions({**PLAIN, key: {name: True}}).items() if f"{key}.{name} " in one[0]]
            if old := [one for one in about if OF_AN_OLD_KEY.search(one[0])]:
                found[f"{key}.{name}"] = dict(zip(("says", "refused"), old[0], strict=True))
    return found


def _names_in_validators() -> set[str]:
    import axolotl.utils.schemas

    (folder,) = axolotl.utils.schemas.__path__
    nodes = [node for path in Path(folder).glob("*.py") for node in ast.walk(ast.parse(path.read_bytes()))]
    texts = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return {text for text in texts if re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", text)}


def _reactions(config: dict[str, Any]) -> dict[str, bool]:
    """The refusals (True) and warnings (False) that a config gets."""
    from axolotl.utils.config import validate_config
    from axolotl.utils.dict import DictDefault
    from axolotl.utils.logging import MultiProcessAdapter

    warned: list[str] = []
    refused: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            warned.append(record.getMessage())

    listener = Listener(logging.WARNING)
    MultiProcessAdapter.warning_once.cache_clear()
    logging.getLogger("axolotl").addHandler(listener)
    try:
        validate_config(DictDefault(config), capabilities=GPU, env_capabilities={"torch_version": "2.14.1"})
    except ValidationError as error:
        refused += [one["msg"] for one in error.errors()]
    except Exception as error:  # its rules may raise anything
        refused.append(str(error))
    finally:
        logging.getLogger("axolotl").removeHandler(listener)
    said = [*((text, False) for text in warned), *((text.removeprefix("Value error, "), True) for text in refused)]
    return {" ".join(text.split()): is_refusal for text, is_refusal in said}


def _plugins() -> dict[str, type[BaseModel]]:
    """The plugins of Axolotl that add keys, by each name that users may write."""
    import axolotl.integrations
    from axolotl.integrations.base import BasePlugin

    found = {}
    for module in _modules(axolotl.integrations):
        for name, plugin in inspect.getmembers(module, inspect.isclass):
            if not issubclass(plugin, BasePlugin):
                continue
            if arguments := typing.cast(Any, plugin)().get_input_args():
                package, _, model = arguments.rpartition(".")
                found[f"{module.__name__}.{name}"] = getattr(importlib.import_module(package), model)
    return found


def _modules(package: types.ModuleType) -> list[types.ModuleType]:
    """Each integration and its `plugin` module, without those whose own dependencies are missing."""
    modules = []
    for entry in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        for name in (entry.name, f"{entry.name}.plugin"):
            try:
                modules.append(importlib.import_module(name))
            except ImportError:
                continue
    return modules


if __name__ == "__main__":
    sys.path.append(str(Path(__file__).resolve().parents[2]))
    from modal_app.patches.apply import apply_schema_patches

    apply_schema_patches()  # or each of the thousands of validations builds the schema
    main(Path(sys.argv[1]))
