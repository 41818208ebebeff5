"""Shell completion: at a TAB, the shell calls `axosweep __complete LINE POINT`. Without Hydra, to answer at once. The
flags of verbs come from their own parsers.
"""

from __future__ import annotations

import argparse
import glob
import importlib
import itertools
import os
from collections.abc import Iterable, Sequence

from modal_app.store.layout import Store
from runner.api.arguments import AXIS_RULES, COMPLETION, FLAGS_OF_OURS, INFO, SHOWN_INFO, SWITCHES, TEXTS, VALUED
from runner.command import VERBS
from runner.command.completion import SHELLS
from runner.config.fields import Field, Fields
from runner.config.project import SWEEPS
from runner.config.vocabulary import AXOLOTL, BASE_OPTION, FROM, Nodes, Vocabulary, read_vocabulary
from runner.console.parser import Names, VerbParser
from runner.store.ledger import sweep_names
from runner.store.stores import open_store

_SIGNS = "+~"


def main(words: Sequence[str]) -> int:
    line, point = words
    print("\n".join(complete(line, int(point))))
    return 0


def complete(line: str, point: int) -> list[str]:
    """The words that fit at the cursor, which is at `point` in `line`; complete and sorted."""
    before = line[:point]
    words = before.split()[1:]
    word = "" if not words or before[-1].isspace() else words.pop()
    return sorted({found for found in _candidates(words, word) if found.startswith(word) and found != word})


def _candidates(words: Sequence[str], word: str) -> Iterable[str]:
    verb, *after = [*words, ""][: len(words) or 1]
    if verb not in _shown_verbs():
        return [*(_shown_verbs() if not words else ()), *_overrides(words, word)]
    parser: VerbParser = importlib.import_module(f"runner.command.{VERBS[verb]}").parser()
    flag = _flag_before(parser, after)
    if flag is not None:
        return _names_of(parser, flag, after, word)
    # The first word after `plan`, and any other, may be an override.
    overrides = _overrides(words, word) if verb == "plan" else ()
    flags = _flags(parser) if word.startswith("-") or not after else ()
    return [*overrides, *flags, *(() if word.startswith("-") else _word_names(parser, after, word))]


def _shown_verbs() -> list[str]:
    return [verb for verb in VERBS if not verb.startswith("_")]


def _flags(parser: VerbParser) -> list[str]:
    """The long forms only."""
    return [text for action in parser.arguments for text in action.option_strings if text.startswith("--")]


def _flag_before(parser: VerbParser, words: Sequence[str]) -> argparse.Action | None:
    """The flag whose value comes next."""
    last = words[-1] if words else ""
    takes_value = (one for one in parser.arguments if last in one.option_strings and one.nargs != 0)
    return next(takes_value, None)


def _word_names(parser: VerbParser, words: Sequence[str], word: str) -> list[str]:
    """What the next word may be, if it is not a flag."""
    given = [
        one for number, one in enumerate(words) if not one.startswith("-") and not _flag_before(parser, words[:number])
    ]
    takers = [one for one in parser.arguments if not one.option_strings]
    for taker in takers:
        if taker.nargs in ("*", "+") or not given:
            return _names_of(parser, taker, words, word)
        given = given[1:]
    return []


def _names_of(parser: VerbParser, action: argparse.Action, words: Sequence[str], word: str) -> list[str]:
    names = [*(action.choices or ()), *parser.names.get(action.dest, ())]
    return [found for name in names for found in _named(name, words, word)]


def _named(name: str, words: Sequence[str], word: str) -> Iterable[str]:
    match name:
        case Names.SWEEP:
            return _sweeps(words)
        case Names.RUN:
            return _runs(words)
        case Names.DATASET:
            return [manifest.parent.name for manifest in _store(words).prepared.glob("*/manifest.json")]
        case Names.FILE:
            return _files(word)
        case Names.FOLDER:
            return [path for path in _files(word) if path.endswith("/")]
    return [name]


def _files(beginning: str) -> list[str]:
    return [f"{path}/" if os.path.isdir(path) else path for path in glob.glob(glob.escape(beginning) + "*")]


def _sweeps(words: Sequence[str]) -> Sequence[str]:
    return sweep_names(_store(words))


def _runs(words: Sequence[str]) -> Sequence[str]:
    """Sweeps, and the runs that have a folder."""
    return [*_sweeps(words), *(path.parent.name for path in _store(words).runs.glob("*/run.json"))]


def _store(words: Sequence[str]) -> Store:
    given = [after for flag, after in itertools.pairwise(words) if flag == "--store"]
    return open_store(given[-1] if given else None)


def _overrides(words: Sequence[str], word: str) -> Iterable[str]:
    previous = words[-1] if words else ""
    if previous in INFO:
        return [*SHOWN_INFO, *_names(word, read_vocabulary())]
    if previous in (*TEXTS, *AXIS_RULES):
        return []
    if previous in VALUED:
        return VALUED[previous]
    if previous in COMPLETION:
        return [f"install={shell}" for shell in SHELLS]
    if word.startswith("-"):
        return [*SWITCHES, *FLAGS_OF_OURS, *TEXTS, *AXIS_RULES, *VALUED, *INFO, *COMPLETION]
    vocabulary = read_vocabulary()
    return _values(word, vocabulary) if "=" in word else _names(word, vocabulary)


def _names(word: str, vocabulary: Vocabulary) -> Iterable[str]:
    """Groups and config nodes, and Axolotl's keys, but these only after a first letter."""
    bare = word.lstrip(_SIGNS)
    sign = word[: len(word) - len(bare)]
    end = "" if sign == "~" else "="
    if bare.startswith(f"{AXOLOTL}."):
        names = _keys(bare.removeprefix(f"{AXOLOTL}."), vocabulary, end)
        return [f"{sign}{AXOLOTL}.{name}" for name in names]
    names = [f"{group}{end}" for group in vocabulary.groups if group not in (SWEEPS, BASE_OPTION)]
    names += [] if end == "" else [f"{BASE_OPTION}{end}"]
    names += _nodes(vocabulary.nodes, "", bare, end)
    names += _keys(bare, vocabulary, end) if bare else []
    return [*(f"{sign}{name}" for name in names), f"+{SWEEPS}="]


def _nodes(nodes: Nodes, before: str, word: str, end: str) -> list[str]:
    """One level: `gpu.` first, and the keys below it once it is typed."""
    names = []
    for name, below in nodes.items():
        full = f"{before}{name}"
        if not below:
            names.append(f"{full}{end}")
        elif word.startswith(f"{full}."):
            names += _nodes(below, f"{full}.", word, end)
        else:
            names.append(f"{full}.")
    return names


def _keys(word: str, vocabulary: Vocabulary, end: str) -> list[str]:
    *path, _ = word.split(".")
    field = _field(path, vocabulary)
    if path and field is None:
        return []
    known = vocabulary.fields.top if field is None else vocabulary.fields.below(field)
    inside_list = field is not None and field.numbered and not path[-1].isdecimal()
    before = ".".join([*path, ""]) + ("0." if inside_list else "")
    return [f"{before}{name}{suffix}" for name, field in known.items() for suffix in _suffixes(field, end)]


def _field(path: Sequence[str], vocabulary: Vocabulary) -> Field | None:
    """The key that a dotted path ends at; numbers are entries of a list, and are skipped."""
    known: Fields = vocabulary.fields.everywhere
    field = None
    for name in path:
        if name.isdecimal():
            continue
        if (field := known.get(name)) is None:
            return None
        known = vocabulary.fields.below(field)
    return field


def _suffixes(field: Field, end: str) -> tuple[str, ...]:
    if field.models and field.numbered:
        return (".0.",)
    return (".",) if field.models else (end,)


def _values(word: str, vocabulary: Vocabulary) -> Iterable[str]:
    """Options of a group, also after a comma; the choices of an Axolotl key; files for data.path and base."""
    key, _, value = word.partition("=")
    name = key.lstrip(_SIGNS)
    if name == FROM:
        return [f"{key}={run}" for run in _runs(())]
    if name in ("data.path", BASE_OPTION):
        return [f"{key}={path}" for path in _files(value)]
    chosen, comma, _ = value.rpartition(",")
    known = _choices(name, vocabulary)
    return [f"{key}={chosen}{comma}{one}" for one in known if one not in chosen.split(",")]


def _choices(name: str, vocabulary: Vocabulary) -> Sequence[str]:
    if name in vocabulary.groups:
        return vocabulary.groups[name]
    if name == "action":
        return ("launch", "plan", "overrides")
    if name in ("json", "executor.warm"):
        return ("true", "false")
    field = _field(name.removeprefix(f"{AXOLOTL}.").split("."), vocabulary)
    return field.choices if field else ()
