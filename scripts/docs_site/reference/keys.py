"""The pages about axosweep's own keys, from the files of conf/ with the comments in them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import yaml

from runner.config.project import CONF
from runner.config.shipped import shipped_root
from scripts.docs_site.markdown import code, code_block, plain, table

NOT_SETTINGS = ("defaults", "hydra")
EXECUTOR = "executor"


@dataclass(frozen=True, slots=True)
class Setting:
    name: str
    """With its place in the composed config: `executor.modal.cpu`."""
    value: str
    """As the file has it; empty for a key that has keys below it."""
    comment: str


def page() -> str:
    """All defaults of a run, except those of its executor, which has a page of its own."""
    text = (shipped_root() / CONF / "config.yaml").read_text(encoding="utf-8")
    rows = [
        (code(one.name), code(one.value), plain(one.comment))
        for one in settings(text)
        if one.name.partition(".")[0] not in (*NOT_SETTINGS, EXECUTOR)
    ]
    parts = ["# axosweep's own keys", table(("key", "default", "what"), rows)]
    parts += ["## The defaults of every run", code_block(text, "yaml")]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def executors() -> str:
    conf = shipped_root() / CONF
    defaults = (conf / "config.yaml").read_text(encoding="utf-8")
    parts = ["# Executor options", "## For every executor", _options(settings(defaults))]
    for file in sorted((conf / EXECUTOR).glob("*.yaml")):
        text = file.read_text(encoding="utf-8")
        parts += [f"## executor={file.stem}", _options(settings(text, f"{EXECUTOR}."))]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _options(found: Iterator[Setting]) -> str:
    below = (one for one in found if one.name.startswith(f"{EXECUTOR}.") and (one.value or one.comment))
    return table(("key", "default", "what"), [(code(one.name), code(one.value), plain(one.comment)) for one in below])


def settings(text: str, above: str = "") -> Iterator[Setting]:
    """The keys of a YAML file in its order, each with its value and the comment at its line, or the one above it."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if isinstance(root, yaml.MappingNode):
        yield from _settings(root, text.splitlines(), above)


def _settings(mapping: yaml.MappingNode, lines: list[str], above: str) -> Iterator[Setting]:
    for key, value in mapping.value:
        name, is_block = f"{above}{key.value}", isinstance(value, yaml.CollectionNode) and not value.flow_style
        end = (key if is_block else value).end_mark
        written = "" if is_block else lines[end.line][value.start_mark.column : end.column].strip()
        yield Setting(
            name, written, _comment(lines, end.line, end.column) or _comment_above(lines, key.start_mark.line)
        )
        if is_block and isinstance(value, yaml.MappingNode):
            yield from _settings(value, lines, f"{name}.")


def _comment(lines: list[str], line: int, after: int) -> str:
    """The comment at the end of a line, with the lines below that continue it in the same column."""
    at = lines[line].find("# ", after)
    texts = [lines[line][at + 1 :]] if at >= 0 else []
    while (
        texts and line + 1 < len(lines) and lines[line + 1].strip().startswith("#") and lines[line + 1].find("#") == at
    ):
        line += 1
        texts.append(lines[line][at + 1 :])
    return " ".join(text.strip() for text in texts)


def _comment_above(lines: list[str], line: int) -> str:
    texts: list[str] = []
    while line > 0 and lines[line - 1].startswith("# "):
        line -= 1
        texts.insert(0, lines[line].removeprefix("# ").strip())
    return "" if line == 0 else " ".join(texts)  # the first comment of a file is about the file
