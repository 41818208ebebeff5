from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modal_app.inference.pieces import Pieces


@given(st.text("abE N\n", max_size=30), st.lists(st.text("abEN", min_size=1, max_size=3), max_size=3))
def test_the_pieces_together_are_the_answer_before_its_first_stop_text(text: str, stops: list[str]) -> None:
    pieces, said = Pieces(stops), ""
    for length in range(len(text) + 1):
        said += pieces.feed(text[:length])
        if pieces.stopped:
            break
    else:
        said += pieces.finish(text)
    end = min((place for stop in stops if (place := text.find(stop)) >= 0), default=len(text))
    assert said == pieces.answer
    # A stop text that is part of another one may have come first while the answer grew.
    assert said.strip() == said
    assert text[:end].strip().startswith(said) or said.startswith(text[:end].strip())
    assert not any(stop in said for stop in stops)


@pytest.mark.parametrize(
    ("stops", "texts", "said"),
    [
        ((), (" one", " one ", " one two"), ["one", "", " two"]),
        (("END",), ("one", "one E", "one EN", "one END", "one END two"), ["one", "", "", "", ""]),
        (("END",), ("one E", "one Ex"), ["one", " Ex"]),
        (("a", "ab"), ("xab",), ["x"]),
        (("b", "a"), ("xaxb",), ["x"]),
        ((), ("caf\ufffd", "caf\u00e9"), ["caf", "\u00e9"]),
    ],
)
def test_what_may_still_change_is_not_sent_yet(stops: tuple[str, ...], texts: tuple[str, ...], said: list[str]) -> None:
    pieces = Pieces(stops)
    assert [pieces.feed(text) for text in texts] == said


def test_what_was_not_sent_yet_comes_at_the_end() -> None:
    pieces = Pieces(["END"])
    assert pieces.feed("one EN") == "one"
    assert pieces.finish("one EN") == " EN"
    assert not pieces.stopped
