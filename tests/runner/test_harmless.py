"""Texts of others never reach a terminal as control sequences, whichever verb prints them."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable

import pytest
from rich.live import Live
from rich.table import Table

from modal_app.store.layout import Store, after_key
from modal_app.store.step import FailureReason, OutcomeStatus, StepKind
from runner import cli
from runner.console import terminal
from runner.console.harmless import harmless
from runner.files.answers import column_of
from runner.follow_up.show_answers import show_answers
from tests.runner.builders import begin_attempt, finish, open_sweep, run
from tests.runner.report_store import answered
from tests.runner.test_datasets import prepared
from tests.runner.test_infer import GREEDY

TRICKS = (
    "\x1b]0;a title\x07 \x1b]52;c;cm0gLXJm\x1b\\ \x1b[2J\x1b[1A \x9b5n \x90q\x9c \x1bc succeeded\rfailed \x08\x7f "
    "\u202egnp.exe\u202c \u2066x\u2069 \u200f \u2028 \x1b[8mhidden"
)
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\u2028\u2029]")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(params=["terminal", "pipe"])
def stream(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    monkeypatch.setenv("TERM", "dumb")  # rich itself then prints no escapes
    monkeypatch.setenv("COLUMNS", "200")
    return Terminal() if request.param == "terminal" else io.StringIO()


@pytest.fixture
def hostile(store: Store) -> str:
    """The key of a run whose label, failure, log, rows and answers contain control sequences of every kind."""
    one, other = run({"learning_rate": 1e-3, "note": TRICKS}), run({"learning_rate": 1e-3, "note": "plain"})
    open_sweep(store, [one, other], "first")
    prepared(store, one.data_key)
    samples = [{"split": "train", "row": 0, "segments": [{"text": TRICKS, "trained": True}]}]
    (store.prepared_dataset(one.data_key) / "samples.json").write_text(json.dumps(samples))
    begin_attempt(store, StepKind.TRAIN, one.key)
    store.folder(StepKind.TRAIN, one.key).attempts()[-1].log.write_text(TRICKS)
    finish(store, StepKind.TRAIN, one.key, OutcomeStatus.FAILED, reason=FailureReason.ERROR, message=TRICKS)
    answered(store, after_key(one.key, "1"), GREEDY, [TRICKS, "b"])
    return one.key


def answers(store: Store, key: str) -> int:
    column = column_of(store, after_key(key, "1"), TRICKS)
    assert column
    show_answers([column], as_json=False)
    return 0


def error(store: Store, key: str) -> int:
    return cli.main(["compare", TRICKS, "--store", str(store.root)])


def progress(store: Store, key: str) -> int:
    table = Table(TRICKS)
    table.add_row(TRICKS)
    with Live(table, console=terminal.messages()):
        terminal.message(TRICKS)
    return 0


def verb(*words: str) -> Callable[[Store, str], int]:
    return lambda store, key: cli.main(
        [*(key if word == "KEY" else word for word in words), "--store", str(store.root)]
    )


PRINTS: dict[str, Callable[[Store, str], int]] = {
    "compare": verb("compare"),
    "compare --json": verb("compare", "--json"),
    "status": verb("status"),
    "ls": verb("ls", "KEY"),
    "data": verb("data"),
    "answers": answers,
    "error": error,
    "progress": progress,
}


@pytest.mark.parametrize("what", PRINTS)
def test_what_others_wrote_sends_no_control_sequences_to_a_terminal(
    store: Store, hostile: str, stream: io.StringIO, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr("sys.stdout", stream)
    monkeypatch.setattr("sys.stderr", stream)
    PRINTS[what](store, hostile)
    shown = re.sub("\x1b\\[\\?25[lh]", "", stream.getvalue())  # the cursor of a live table
    assert shown
    assert OBEYED.findall(shown) == []


def test_a_sample_of_a_dataset_sends_no_control_sequences_to_a_terminal(
    store: Store, hostile: str, stream: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout", stream)
    (key,) = [path.name for path in store.prepared.iterdir() if (path / "samples.json").exists()]
    assert cli.main(["data", key, "--store", str(store.root)]) == 0
    assert "hidden" in stream.getvalue()
    assert OBEYED.findall(stream.getvalue()) == []


@pytest.mark.parametrize("form", ["--csv", "--md"])
def test_a_table_for_programs_is_neutralized_on_a_terminal_alone(
    store: Store, hostile: str, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    for stream, harmful in ((Terminal(), False), (io.StringIO(), True)):
        monkeypatch.setattr("sys.stdout", stream)
        cli.main(["compare", form, "--store", str(store.root)])
        assert bool(OBEYED.findall(stream.getvalue())) is harmful


def test_a_log_is_neutralized_on_a_terminal_and_byte_for_byte_in_a_pipe(
    store: Store, hostile: str, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    log = store.folder(StepKind.TRAIN, hostile).attempts()[-1].log
    content = b"\xff\x00 10%\r20%\r\n" + TRICKS.encode()
    log.write_bytes(content)
    words = ["logs", hostile, "--store", str(store.root)]
    assert cli.main(words) == 0
    assert capfdbinary.readouterr().out == content
    stream = Terminal()
    monkeypatch.setattr("sys.stdout", stream)
    assert cli.main(words) == 0
    assert OBEYED.findall(stream.getvalue()) == []
    assert stream.getvalue().startswith("\ufffd\ufffd 10%\n20%\n")


def test_letters_of_any_language_stay_as_they_are() -> None:
    text = "žluťoučký 日本語 עברית \t\n 🙂"
    assert harmless(text) == text
