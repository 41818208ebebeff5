"""A growing answer -> the pieces of it that can be sent already. Pure."""

from __future__ import annotations

from collections.abc import Sequence

_INCOMPLETE = "\ufffd"
"""What a tokenizer returns for a character of which only the first bytes have been generated."""


class Pieces:
    """The pieces, joined, are the answer without white space at both ends, up to the first stop text."""

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self._stops = [stop for stop in stops if stop]
        self._sent = ""
        self.stopped = False
        """Whether the answer has reached a stop text."""

    def feed(self, text: str) -> str:
        """The new piece that will not change any more. `text` is the complete answer so far.

        >>> pieces = Pieces(["END"])
        >>> pieces.feed(" one "), pieces.feed(" one EN"), pieces.feed(" one ENough"), pieces.feed(" one ENough END")
        ('one', '', ' ENough', '')
        """
        text = self._cut(text)
        if not self.stopped:
            text = text[: len(text) - self._begun(text)].rstrip(_INCOMPLETE)
        return self._new(text.strip())

    def finish(self, text: str) -> str:
        """The last piece. `text` is the complete answer.

        >>> pieces = Pieces(["END"])
        >>> pieces.feed("one E"), pieces.finish("one E")
        ('one', ' E')
        """
        return self._new(self._cut(text).strip())

    @property
    def answer(self) -> str:
        """All that was sent."""
        return self._sent

    def _cut(self, text: str) -> str:
        places = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        self.stopped = bool(places)
        return text[: min(places)] if places else text

    def _begun(self, text: str) -> int:
        """How much of the text's end may be the beginning of a stop text."""
        lengths = (
            length
            for stop in self._stops
            for length in range(min(len(stop) - 1, len(text)), 0, -1)
            if text.endswith(stop[:length])
        )
        return max(lengths, default=0)

    def _new(self, text: str) -> str:
        if not text.startswith(self._sent):
            return ""  # the tokenizer has changed earlier text, which is sent already
        new = text[len(self._sent) :]
        self._sent = text
        return new
