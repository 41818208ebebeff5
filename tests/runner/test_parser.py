"""What a verb's command line does not accept is refused with one message, like every other mistake."""

from __future__ import annotations

import pytest

from runner import cli
from runner.command import VERBS
from runner.console.parser import VerbParser
from runner.errors import SweepError


def refusal(*words: str) -> str:
    parser = VerbParser("ask", more="A question is --prompt.")
    parser.add_argument("run")
    parser.add_argument("--prompt")
    parser.add_argument("--port", type=int)
    with pytest.raises(SweepError) as caught:
        parser.read(words)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("run", "--promt=x"), "There is no flag --promt of axosweep ask. Did you mean --prompt"),
        (("run", "--prom", "x"), "Did you mean --prompt"),
        (("--nothing", "x"), "There is no flag --nothing of axosweep ask. See axosweep ask --help."),
        (("run", "-x"), "There is no flag -x of axosweep ask. See axosweep ask --help."),
        (("run", "why", "so"), "ask: why so: 2 words too many. A question is --prompt. See axosweep ask --h"),
        (("run", "why"), "ask: why: a word too many."),
        (("",), "ask: RUN is empty, but a name is expected. Is a shell variable not set? See axosweep ask --help."),
        ((), "ask: the following arguments are required: run. See axosweep ask --help."),
        (("run", "--port", "x"), "ask: --port: invalid int value: 'x'. See axosweep ask --help."),
        (("run", "--prompt"), "ask: --prompt: expected one argument. See axosweep ask --help."),
    ],
)
def test_a_mistake_is_one_line_with_the_way_out(words: tuple[str, ...], expected: str) -> None:
    assert expected in refusal(*words)


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in ("plan", "__complete")])
def test_every_verb_says_so(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`plan` passes what it does not know to the application, which gives the same message."""
    assert cli.main([verb, "--stroe", "DIR"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert " ".join(said.err.split()).startswith(f"axosweep: There is no flag --stroe of axosweep {verb}.")
    assert "usage" not in said.err


@pytest.mark.parametrize("verb", ["watch", "serve"])
@pytest.mark.parametrize("port", ["65536", "-1", "8o80"])
def test_a_port_is_one_that_exists(verb: str, port: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([verb, "--port", port]) == 2
    assert f"{verb}: --port: {port} is not a port: expected 1 to 65535, or 0" in capsys.readouterr().err


def test_what_only_looks_like_a_flag_is_not_taken_for_one() -> None:
    parser = VerbParser("ask")
    parser.add_argument("run")
    parser.add_argument("--number", type=int)
    requested = parser.read(["--number", "-3", "--", "--run"])
    assert (requested.run, requested.number) == ("--run", -3)
    assert parser.read(["--has to be"]).run == "--has to be"
    assert parser.read(["-"]).run == "-"


def test_words_may_stand_before_and_after_a_flag() -> None:
    parser = VerbParser("ask")
    parser.add_argument("words", nargs="*")
    parser.add_argument("--prompt")
    for line in ("a b --prompt x", "a --prompt x b", "--prompt x a b"):
        requested = parser.read(line.split())
        assert (requested.words, requested.prompt) == (["a", "b"], "x")
    with pytest.raises(SweepError, match="2 words too many"):
        parser.read(["a", "--prompt", "x", "--", "b"])


def test_a_plan_with_a_flag_that_it_does_not_have_is_refused_alike(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", "--diff"]) == 2
    assert capsys.readouterr().err.startswith("axosweep: plan: --diff: expected one argument.")
    assert cli.main(["plan", "--owerrides"]) == 2
    assert "There is no flag --owerrides" in capsys.readouterr().err
