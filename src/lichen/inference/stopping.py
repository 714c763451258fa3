"""From a stream of tokens to a stream of text: whole characters only, and an end at a stop text.

A token is not a piece of text: a character may be spread over several tokens (the tokenizer's ``StreamDecoder`` holds
those back), and a token may hold the end of a stop text and more behind it. So the longest end of the text that could
be the beginning of a stop text is held back too. What was shown is never taken back; what is shown in the end equals
decoding everything at once and cutting where the stop text begins that is complete first.

>>> stops = StopTexts(["</s>"])
>>> [stops.push(text) for text in ("one <", "b> <", "/s> two")], stops.met
(['one ', '<b> ', ''], True)
"""

from __future__ import annotations

from collections.abc import Sequence

from lichen.dataset.tokenizer import StreamDecoder, Tokenizer


class StopTexts:
    """Looks for stop texts in text that arrives in pieces, whatever the pieces are."""

    def __init__(self, stops: Sequence[str] = ()):
        self._stops = tuple(stops)
        self._held = ""
        self.met = False
        """Whether a stop text was met; nothing is given out behind it."""

    def push(self, text: str) -> str:
        """Take ``text`` in; returns what is certain not to belong to a stop text."""
        if self.met:
            return ""
        text = self._held + text
        found = [(place + len(stop), place) for stop in self._stops if (place := text.find(stop)) >= 0]
        if found:
            self.met, self._held = True, ""
            return text[: min(found)[1]]
        keep = len(text) - _possible_start(text, self._stops)
        self._held = text[keep:]
        return text[:keep]

    def finish(self) -> str:
        """No text follows: returns what was held back."""
        held, self._held = self._held, ""
        return held


class TextStream:
    """The text of one generated row, token by token.

    ``context`` are the prompt's ids: a tokenizer that writes the space before a word with the word needs them to know
    that the row does not begin a text.
    """

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str] = (), context: Sequence[int] = ()):
        self._decoder = StreamDecoder(tokenizer)
        for token in context[-8:]:
            self._decoder.push(token)
        self._stops = StopTexts(stops)
        self._parts: list[str] = []

    @property
    def text(self) -> str:
        """All that was given out so far."""
        return "".join(self._parts)

    @property
    def stopped(self) -> bool:
        """Whether a stop text was met."""
        return self._stops.met

    def push(self, token: int) -> str:
        """Take one token in; returns the text that is certain now, often ''."""
        return self._give(self._stops.push(self._decoder.push(token)))

    def finish(self) -> str:
        """No token follows: returns what was held back."""
        return self._give(self._stops.push(self._decoder.finish()) + self._stops.finish())

    def _give(self, text: str) -> str:
        if text:
            self._parts.append(text)
        return text


def _possible_start(text: str, stops: Sequence[str]) -> int:
    """How many last characters of ``text`` could be the beginning of a stop text.

    >>> _possible_start("one <|", ("<|end|>", "###"))
    2
    """
    longest = 0
    for stop in stops:
        for length in range(min(len(stop) - 1, len(text)), longest, -1):
            if text.endswith(stop[:length]):
                longest = length
                break
    return longest


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
