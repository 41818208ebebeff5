"""Why Axolotl's schema refuses a config: every rule that refuses it, with its keys. Runs in the trainer's Python.

Axolotl's rules stop at the first refusal, so a user could only fix one problem at a time. After a refusal, the same
rules run once more, and each rule that refuses is recorded and skipped.
"""

from __future__ import annotations

import functools
import inspect
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

MOST_KEYS = 6
"""A rule may read many keys that have nothing to do with its refusal."""
PLAIN = (ValueError, DeprecationWarning, ImportError)
"""What Axolotl raises to refuse a config; the message of any other error includes its class."""

Problem = dict[str, Any]
"""keys: the dotted names that the problem is about. message: Axolotl's own."""


def explained(error: Exception, config: Mapping[str, Any], on_the_gpu: Mapping[str, Any]) -> list[Problem]:
    """The refusal itself first, then what would be refused after it is fixed."""
    noted = _all_rules(config, on_the_gpu)
    known = {one["message"]: one for one in noted}  # these have the keys that the rule has read
    first = [one if "." in "".join(one["keys"]) else known.get(one["message"], one) for one in _of_error(error, config)]
    return list({(tuple(one["keys"]), one["message"]): one for one in (*first, *noted)}.values())


def _of_error(error: Exception, config: Mapping[str, Any]) -> Iterator[Problem]:
    from pydantic import ValidationError

    if not isinstance(error, ValidationError):
        yield _of_rule(error, (), config)
        return
    by_place: dict[tuple[str, ...], list[str]] = {}
    for one in _errors(error, config):
        by_place.setdefault(_place(one["loc"], config), []).append(_sentence(one["msg"]))
    for place, messages in by_place.items():
        text = " or ".join(dict.fromkeys(messages))
        yield {"keys": [".".join(place)] if place else _named(config, text), "message": text}


def _errors(error: Any, config: Mapping[str, Any]) -> list[Any]:
    """pydantic's errors. Axolotl validates each dataset separately, so the dataset's index is added to its errors."""
    from axolotl.utils.schemas import datasets as schemas
    from pydantic import ValidationError

    model: Any = getattr(schemas, error.title, None)
    listed = config.get("datasets")
    found = []
    for index, dataset in enumerate(listed if model is not None and isinstance(listed, list) else ()):
        try:
            model(**dataset)
        except ValidationError as wrong:
            found += [{**one, "loc": ("datasets", index, *one["loc"])} for one in wrong.errors()]
    return found or list(error.errors())


def _place(location: Sequence[str | int], config: Any) -> tuple[str, ...]:
    """The part of pydantic's location that exists in the config, or a missing key; the rest names union members."""
    place: list[str] = []
    for part in location:
        numbered = isinstance(config, list) and isinstance(part, int) and part < len(config)
        if not numbered and not (isinstance(config, Mapping) and part in config):
            return (str(part),) if len(location) == 1 else tuple(place)
        config = config[part]
        place.append(str(part))
    return tuple(place)


def _of_rule(error: Exception, read: Sequence[str], config: Mapping[str, Any]) -> Problem:
    """A rule's refusal. Its keys are those that the rule read and the config sets; of many, those in the message."""
    text = _sentence(str(error) if isinstance(error, PLAIN) else f"{type(error).__name__}: {error}")
    present = [key for key in read if key in config]
    named = _named(present or config, text)
    keys = named if len(named) > 1 or len(present) > 3 else present or named or list(read)[:2]
    return {"keys": (keys or present)[:MOST_KEYS], "message": text}


def _named(keys: Any, message: str) -> list[str]:
    return [key for key in keys if re.search(rf"(?<![\w.]){re.escape(key)}(?!\w)", message)]


def _sentence(message: str) -> str:
    return " ".join(message.removeprefix("Value error, ").split())


def _all_rules(config: Mapping[str, Any], on_the_gpu: Mapping[str, Any]) -> list[Problem]:
    from axolotl.utils import config as place

    with_capabilities, _ = place.merge_input_args()
    _notes.problems, _notes.config = [], config
    data = json.loads(json.dumps({**config, **on_the_gpu}))
    try:
        _noting(with_capabilities)(**data)
    except Exception as error:  # a field's own rule may raise anything
        return [*_notes.problems, *_of_error(error, config)]
    return _notes.problems


@dataclass(slots=True)
class _Notes:
    """What the rules have refused in one config, and which keys the current rule has read."""

    problems: list[Problem] = field(default_factory=list)
    config: Mapping[str, Any] = field(default_factory=dict)
    read: dict[str, None] | None = None
    """In order of reading; None while no rule runs."""

    def run(self, rule: Callable[[Any], Any], given: Any, otherwise: Any) -> Any:
        self.read = {}
        try:
            return rule(given)
        except Exception as error:  # a rule of Axolotl's may raise anything
            self.problems.append(_of_rule(error, list(self.read or ()), self.config))
            return otherwise
        finally:
            self.read = None

    def note(self, name: str) -> None:
        if self.read is not None:
            self.read[name] = None


_notes = _Notes()


class _RecordingConfig(dict[str, Any]):
    """A config that notes which of its keys a rule reads."""

    def get(self, key: str, default: Any = None) -> Any:
        _notes.note(key)
        return super().get(key, default)

    def __getitem__(self, key: str) -> Any:
        _notes.note(key)
        return super().__getitem__(key)


@functools.cache
def _noting(model: Any) -> Any:
    """The same schema, but a rule that refuses is noted with the keys that it read, and its input stays unchanged."""
    from pydantic import model_validator

    rules: dict[str, Any] = {"__getattribute__": _noted_attribute, "__module__": __name__}
    for name, decorator in model.__pydantic_decorators__.model_validators.items():
        if len(inspect.signature(decorator.func).parameters) != 1:
            continue  # such a rule takes more than the config; it stays as it is
        if decorator.info.mode == "before":
            rules[name] = model_validator(mode="before")(_before(decorator.func))
        elif decorator.info.mode == "after":
            rules[name] = model_validator(mode="after")(_after(decorator.func))
    return type(f"Noting{model.__name__}", (model,), rules)


def _before(rule: Callable[[Any], Any]) -> Any:
    def noted(cls: Any, data: Any) -> Any:
        return _notes.run(rule, _RecordingConfig(data), otherwise=data)

    return classmethod(noted)


def _after(rule: Callable[[Any], Any]) -> Any:
    def noted(self: Any) -> Any:
        return _notes.run(rule, self, otherwise=self)

    return noted


def _noted_attribute(self: Any, name: str) -> Any:
    _notes.note(name)
    return object.__getattribute__(self, name)
