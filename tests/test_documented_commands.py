"""Every command that a document shows is one that axosweep takes: its verb, flags, groups, options and keys exist.

Nothing is started here. tests/end_to_end/test_commands_of_documents.py runs these commands, `make wheel-check` those of
docs/install.md, test_first_launch.py those of docs/modal.md, and test_python_api.py the notebook.
"""

from __future__ import annotations

import importlib
import re

import pytest

from runner.api.arguments import take_apart
from runner.command import VERBS
from runner.config.overrides import canonical_all, no_such_option, parts
from runner.config.vocabulary import BASE_OPTION, Vocabulary, read_vocabulary
from runner.console.parser import VerbParser
from runner.errors import SweepError
from tests.documented import FENCED, OMITTED, PAGES, ROOT, command_lines, words_of

SPAN = re.compile(r"`(?:\.venv/bin/)?(axosweep [^`]*)`")
CREATED = {
    "+sweeps=first": "axosweep init creates it",
    "experiment=my-axolotl": "axosweep import creates it",
    "dataset=preferences": "the page shows the file",
    "dataset=both": "the page shows the file",
    "lora=attention": "the page shows the file",
    "lora=attention,r16": "the page shows the file",
    "model=smollm2": "the page shows the file",
}
"""Options that a command of the same page creates, or a file that the page says to write."""
ANY_VERB = "VERB"


def test_every_command_in_a_document_is_one_that_axosweep_takes() -> None:
    vocabulary, seen = read_vocabulary(), set[str]()
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        for line in command_lines(text):
            _accept(f"{page}: {line}", _words(line), vocabulary, complete=OMITTED not in line)
        for line in SPAN.findall(FENCED.sub("", text)):
            _accept(f"{page}: {line}", _words(line), vocabulary, complete=False)
        seen |= {word for line in command_lines(text) for word in line.split()[1:2]}
    assert {name for name in VERBS if not name.startswith("_")} - seen == {"completion"}, "a verb that no page shows"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("axosweep comparre SWEEP", "verb"),
        ("axosweep compare SWEEP --ovr seed", "flag"),
        ("axosweep push RUN", "OWNER/NAME"),
        ("axosweep -m lora=r9", "r9"),
        ("axosweep plan -m learnin_rate=1", "learnin_rate"),
        ("axosweep plan -m seed=1 --forse", "flag"),
    ],
)
def test_a_command_that_axosweep_would_refuse_is_found(line: str, reason: str) -> None:
    with pytest.raises(AssertionError, match=reason):
        _accept(line, _words(line), read_vocabulary(), complete=True)


def _words(line: str) -> list[str]:
    """The words without placeholders, and without options that the page creates."""
    return [word for word in words_of(line) if word not in (OMITTED, *CREATED)]


def _accept(where: str, words: list[str], vocabulary: Vocabulary, *, complete: bool) -> None:
    """`complete`: it has all words that its verb needs; otherwise only its verb, flags and overrides are looked at."""
    verb = words[0] if words else ""
    try:
        if verb == ANY_VERB or {"-h", "--help"} & {*words}:
            return
        if verb == "plan":
            _launch(_parser("plan").parse_known_args(words[1:])[1], vocabulary)
        elif verb in VERBS and complete:
            _parser(verb).read(words[1:])
        elif verb in VERBS:
            flags = {flag for argument in _parser(verb).arguments for flag in argument.option_strings}
            assert {word for word in words[1:] if word.startswith("-")} <= flags, f"{where}: no such flag"
        else:
            assert not verb.isidentifier(), f"{where}: no such verb"
            _launch(words, vocabulary)
    except SweepError as error:
        raise AssertionError(f"{where}: {error}") from error


def _parser(verb: str) -> VerbParser:
    parser: VerbParser = importlib.import_module(f"runner.command.{VERBS[verb]}").parser()
    return parser


def _launch(words: list[str], vocabulary: Vocabulary) -> None:
    """Flags, keys and options. What Hydra would find later, too: an option that its group does not have."""
    overrides = take_apart(words).overrides
    canonical_all(overrides, vocabulary)
    for chosen in map(parts, overrides):
        options = vocabulary.groups.get(chosen.key, ()) if chosen.key != BASE_OPTION else ()
        for option in (chosen.value or "").split(",") if options else ():
            if option not in options:
                raise SweepError(no_such_option(chosen.key, option, options))
