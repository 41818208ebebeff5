"""The page about verbs: what `axosweep --help` prints, and the words and flags of each verb."""

from __future__ import annotations

import argparse
import importlib
import re

from runner.command import VERBS
from runner.command import help as help_page
from runner.console.parser import VerbParser
from scripts.docs_site.markdown import code, code_block, plain, table


def page() -> str:
    verbs = [_section(name, module) for name, module in sorted(VERBS.items()) if not name.startswith("_")]
    first = "The help of a command line without a verb, which launches:\n\n"
    return "\n".join(["# Verbs and flags\n", first + code_block(help_page.text()), *verbs])


def _section(name: str, module: str) -> str:
    verb: VerbParser = importlib.import_module(f"runner.command.{module}").parser()
    usage = re.sub(r"\s+", " ", verb.format_usage().removeprefix("usage: ")).strip()
    rows = [(code(_written(one)), plain(_meaning(one))) for one in verb.arguments]
    parts = [f"## {name}", f"`{usage}`" if "`" not in usage else usage, _paragraphs(verb.description or "")]
    parts += [table(("argument", "what"), rows)] if rows else []
    parts += [code_block(verb.epilog)] if verb.epilog else []
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"


def _paragraphs(text: str) -> str:
    return "\n\n".join(plain(one) for one in re.split(r"\n\s*\n", text))


def _written(argument: argparse.Action) -> str:
    """As it is typed: `--sort KEY`, `SWEEP ...`."""
    many = " ..." if argument.nargs in ("*", "+") or (isinstance(argument.nargs, int) and argument.nargs > 1) else ""
    choices = "|".join(map(str, argument.choices or ()))
    metavar = argument.metavar if isinstance(argument.metavar, str) else None
    value = metavar or choices or argument.dest.upper()
    if not argument.option_strings:
        return value + many
    flags = ", ".join(argument.option_strings)
    return flags if argument.nargs == 0 else f"{flags} {value}{many}"


def _meaning(argument: argparse.Action) -> str:
    text = argument.help or ""
    return text % {**vars(argument), "prog": "axosweep"} if "%" in text else text
