"""The page about the Python API: what `axosweep` exports, with the signatures and texts of the code."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import axosweep
from scripts.docs_site.attribute_docs import attribute_docs
from scripts.docs_site.markdown import code, code_block, plain, table


def page() -> str:
    names = sorted(axosweep.__all__, key=lambda name: (isinstance(getattr(axosweep, name), type), name))
    parts = ["# Python API", *_text(axosweep.__doc__ or "")]
    for name in names:
        described = getattr(axosweep, name)
        parts += [f"## {name}", *(_class(described) if isinstance(described, type) else _function(name, described))]
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"


def _function(name: str, function: Callable[..., Any]) -> Iterator[str]:
    yield code_block(f"{name}{_signature(function)}", "python")
    yield from _text(inspect.getdoc(function) or "")


def _class(described: type) -> Iterator[str]:
    written = inspect.getdoc(described) or ""
    yield from () if written.startswith(f"{described.__name__}(") else _text(written)  # dataclass writes one, too
    if issubclass(described, enum.Enum):
        yield table(("value", "what"), [(code(one.value), _below(described, one.name)) for one in described])
    elif dataclasses.is_dataclass(described):
        fields = [(code(one.name), code(_plain_type(one.type)), _below(described, one.name))
                  for one in dataclasses.fields(described)]  # fmt: skip
        yield table(("field", "type", "what"), fields)
    for name, member in vars(described).items():
        function = member.fget if isinstance(member, property) else member
        if not name.startswith("_") and inspect.isfunction(function):
            signature = _signature(function)
            shown = f": {signature.rpartition(' -> ')[2]}" if isinstance(member, property) else signature
            yield f"### {described.__name__}.{name}"
            yield code_block(f"{name}{shown}", "python")
            yield from _text(inspect.getdoc(function) or "")


def _below(described: type, name: str) -> str:
    return plain(attribute_docs(described).get(name, ""))


def _text(docstring: str) -> Iterator[str]:
    """Paragraphs; lines that begin with >>> are an example."""
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(docstring)):
        if paragraph.lstrip().startswith(">>>"):
            lines = [re.sub(r"^\s*>>> |\s*# doctest: .*$", "", line) for line in paragraph.splitlines()]
            yield code_block("\n".join(lines), "python")
        elif paragraph:
            yield plain(paragraph)


def _signature(function: Callable[..., Any]) -> str:
    """The signature without `self`; types as they are written."""
    signature = inspect.signature(function)
    kept = [one for one in signature.parameters.values() if one.name != "self"]
    return re.sub(r"'([^']*)'", r"\1", str(signature.replace(parameters=kept)))


def _plain_type(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))
