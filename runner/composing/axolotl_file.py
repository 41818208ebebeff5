"""An Axolotl config file -> a config that a run can start from: without what axosweep manages. Does not import Hydra.

The file is read as `axolotl train` reads it: as YAML 1.1, where 2e-5 is text. Axolotl's schema turns it into a number.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from modal_app.store.redact import is_secret
from runner.config.fields import Field, Fields, axolotl_fields, unknown_keys, unknown_paths
from runner.errors import SweepError
from runner.keys.identity import is_address

TRACKING = {"wandb_project": "project", "wandb_entity": "entity"}
"""Keys that axosweep has under `tracking`."""

VARIABLES = {
    "wandb_api_key": "WANDB_API_KEY",
    "comet_api_key": "COMET_API_KEY",
    "swanlab_api_key": "SWANLAB_API_KEY",
    "swanlab_lark_secret": "SWANLAB_LARK_SECRET",
    "swanlab_lark_webhook_url": "SWANLAB_LARK_WEBHOOK_URL",
    "hatchery.api_key": "HATCHERY_API_KEY (or TINKER_API_KEY)",
}
"""Where the service looks for a secret that is not in the config."""

EMPTY: tuple[Any, ...] = (None, "", [], {})
_EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")


@dataclass(frozen=True, slots=True)
class Base:
    """A config that a run can start from."""

    file: str
    """As the user wrote it."""
    axolotl: Mapping[str, Any]
    """What the file says, in its order: JSON values only."""
    tracking: Mapping[str, str]
    notes: tuple[str, ...]
    """What was left out or added, a sentence each."""


def read_base(file: str) -> Base:
    """Raises SweepError for a file that does not exist or is not a config, and for content that cannot be used."""
    base = Base(file, _load(file), {}, ())
    for step in (_without_secrets, _without_addresses, _without_empty_unknown_keys, _with_a_seed):
        base = step(base)
    if problems := [*_unsupported(base.axolotl), *_refused(base.axolotl)]:
        raise SweepError("\n".join([f"{file} cannot be used as it is:", *(f"- {one}" for one in problems)]))
    known = axolotl_fields().everywhere
    return replace(base, axolotl={key: _number(value, known.get(key)) for key, value in base.axolotl.items()})


def _load(file: str) -> dict[str, Any]:
    path = Path(file).expanduser()
    if file.startswith(("http://", "https://")):
        raise SweepError(f"{file} is a web address. Download the config, and give the file's path.")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SweepError(f"{file}: there is no such file (looked in {Path.cwd()}).") from None
    except IsADirectoryError:
        raise SweepError(f"{file} is a folder. Give the path of an Axolotl config, a YAML file.") from None
    except OSError as error:
        raise SweepError(f"{file} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise SweepError(f"{file} is not text in UTF-8, so it is not an Axolotl config.") from error
    except yaml.YAMLError as error:
        raise SweepError(f"{file} is not valid YAML: {error}") from error
    if not isinstance(content, dict) or not content:
        what = "empty" if not content else f"a {type(content).__name__}"
        raise SweepError(f"{file} is {what}, not an Axolotl config: a mapping of keys, base_model among them.")
    return content


def _without_addresses(base: Base) -> Base:
    """Removes the keys that say where results go. Empty ones, which most files have, are not mentioned."""
    left = [key for key, value in base.axolotl.items() if is_address(key) and value not in (None, "", False)]
    tracking = {TRACKING[key]: str(base.axolotl[key]) for key in left if key in TRACKING}
    notes = [f"{', '.join(left)}: left out; axosweep sets where a run writes and what it reports to."] if left else []
    notes += [f"tracking.{name} is {value}, from the file." for name, value in tracking.items()]
    remaining = {key: value for key, value in base.axolotl.items() if not is_address(key)}
    return replace(base, axolotl=remaining, tracking=tracking, notes=(*base.notes, *notes))


def _without_secrets(base: Base) -> Base:
    remaining, found = _split_secrets(base.axolotl, "")
    variables = {name: VARIABLES.get(name, "the variable of its service") for name in found}
    notes = [f"{name}: a secret, left out. Set {variable} in the environment." for name, variable in variables.items()]
    return replace(base, axolotl=remaining, notes=(*base.notes, *notes))


def _split_secrets(node: Any, before: str) -> tuple[Any, list[str]]:
    """A config without its secrets, and the dotted names of what was taken out."""
    found: list[str] = []
    if isinstance(node, dict):
        remaining = {}
        for key, value in node.items():
            if isinstance(value, str) and value and is_secret(str(key)):
                found.append(f"{before}{key}")
            else:
                remaining[key], below = _split_secrets(value, f"{before}{key}.")
                found += below
        return remaining, found
    if isinstance(node, list):
        pairs = [_split_secrets(value, f"{before}{index}.") for index, value in enumerate(node)]
        return [value for value, _ in pairs], [name for _, names in pairs for name in names]
    return node, found


def _without_empty_unknown_keys(base: Base) -> Base:
    """Many files have keys of earlier versions without a value, such as `debug:` and `gptq_groupsize:`."""
    unknown = [key for key, _ in unknown_paths(base.axolotl, axolotl_fields())]
    empty = [key for key in unknown if _is_empty(base.axolotl, key.split("."))]
    if not empty:
        return base
    note = f"{', '.join(empty)}: left out; Axolotl has no such key, and the file gives it no value."
    remaining = base.axolotl
    for key in empty:
        remaining = _removed(remaining, key.split("."))
    return replace(base, axolotl=remaining, notes=(*base.notes, note))


def _is_empty(node: Any, path: Sequence[str]) -> bool:
    """Whether the key at the path has no value. False for a key that is not text or has a dot, which is refused."""
    for name in path:
        if isinstance(node, list) and name.isdecimal() and int(name) < len(node):
            node = node[int(name)]
        elif isinstance(node, dict) and name in node:
            node = node[name]
        else:
            return False
    return node in EMPTY


def _removed(node: Any, path: Sequence[str]) -> Any:
    """A copy without the key at the path."""
    name, *rest = path
    if isinstance(node, list):
        return [_removed(one, rest) if index == int(name) else one for index, one in enumerate(node)]
    return {key: _removed(one, rest) if key == name else one for key, one in node.items() if rest or key != name}


def _with_a_seed(base: Base) -> Base:
    """Without a seed Axolotl shuffles differently each time; it reads `seed:` without a value as 42."""
    if base.axolotl.get("seed") is not None:
        return base
    remaining = {key: value for key, value in base.axolotl.items() if key != "seed"}
    note = "seed: axosweep's own was added; without one, Axolotl would shuffle each run differently."
    return replace(base, axolotl=remaining, notes=(*base.notes, *(() if "seed" in base.axolotl else (note,))))


def _unsupported(node: Any, at: str = "") -> Iterator[str]:
    """Values that YAML allows and a run's key does not: a key has to be the same everywhere."""
    match node:
        case None | bool() | str() | int():
            return
        case float():
            if not math.isfinite(node):
                yield f"{at} is {node}, which cannot be part of a run's key."
        case dict():
            for key, value in node.items():
                name = f"{at}.{key}" if at else str(key)
                if not isinstance(key, str | int) or isinstance(key, bool):
                    yield f"{name}: its name is read as a {type(key).__name__}. Put it in quotes."
                yield from _unsupported(value, name)
        case list():
            for index, value in enumerate(node):
                yield from _unsupported(value, f"{at}.{index}")
        case _:
            yield f"{at} is read as a {type(node).__name__} ({node}). Put it in quotes, if it is text."


def _refused(axolotl: Mapping[str, Any]) -> Iterator[str]:
    yield from unknown_keys({str(key): value for key, value in axolotl.items()}, axolotl_fields())
    if axolotl.get("resume_from_checkpoint"):
        yield (
            "resume_from_checkpoint: a run resumes from its own newest checkpoint; another one would change its "
            "result, but not its key. Leave it out; from=RUN@STEP continues from a run, lora_model_dir from an adapter."
        )


def _number(value: Any, field: Field | None) -> Any:
    """2e-5 as a number, wherever Axolotl's schema would turn it into one."""
    match value:
        case str() if field is not None and "float" in field.type and _EXPONENT.fullmatch(value):
            return float(value)
        case dict() if field is not None and field.models:
            below: Fields = axolotl_fields().below(field)
            return {key: _number(one, below.get(str(key))) for key, one in value.items()}
        case list():
            return [_number(one, field) for one in value]
        case _:
            return value


# The form that omegaconf, with which Hydra reads files, reads back unchanged.


def for_omegaconf(value: Any) -> Any:
    r"""The same value for a config file of Hydra's: what looks like its own syntax is escaped.

    >>> for_omegaconf({"system": "Cost: ${price}", "pad": "???", "r": 8})
    {'system': 'Cost: \\${price}', 'pad': '${oc.decode:"\'???\'"}', 'r': 8}
    """
    match value:
        case "???":
            return """${oc.decode:"'???'"}"""  # unquoted, it would mean a missing value
        case str():
            return re.sub(r"(\\*)\$\{", lambda found: found[1] * 2 + "\\${", value)
        case dict():
            return {key: for_omegaconf(one) for key, one in value.items()}
        case list():
            return [for_omegaconf(one) for one in value]
        case _:
            return value
