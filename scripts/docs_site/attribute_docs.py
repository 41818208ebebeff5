"""The texts below the attributes of a class, which Python itself does not store."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Mapping


def attribute_docs(described: type) -> Mapping[str, str]:
    """Attribute -> the text below it. An attribute without a text is left out."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(described))).body
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for before, after in zip(definition.body, definition.body[1:], strict=False):
        name, text = _name(before), after.value if isinstance(after, ast.Expr) else None
        if name and isinstance(text, ast.Constant) and isinstance(text.value, str):
            found[name] = inspect.cleandoc(text.value)
    return found


def _name(statement: ast.stmt) -> str:
    target = statement.targets[0] if isinstance(statement, ast.Assign) else None
    target = statement.target if isinstance(statement, ast.AnnAssign) else target
    return target.id if isinstance(target, ast.Name) else ""
