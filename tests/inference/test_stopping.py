"""Text streams: whatever the borders of tokens, the text shown is the whole text, cut at the first stop text."""

import itertools
import random

import pytest

from lichen.dataset.tokenizer import Tokenizer
from lichen.inference.stopping import StopTexts, TextStream


class PieceTokenizer(Tokenizer):
    """A byte-level vocabulary: token i is ``pieces[i]``."""

    special_ids = frozenset()

    def __init__(self, pieces):
        self.pieces = pieces

    @property
    def token_bytes(self):
        return self.pieces


def stream_all(data: bytes, cuts: list[int], stop: tuple[str, ...] = ()):
    pieces = [data[start:end] for start, end in itertools.pairwise([0, *cuts, len(data)])]
    stream = TextStream(PieceTokenizer(pieces), stop)
    shown = []
    for token in range(len(pieces)):
        shown.append(stream.push(token))
        if stream.stopped:
            break
    shown.append(stream.finish())
    assert "".join(shown) == stream.text
    return stream, shown


def cut_at_first(text: str, stops: tuple[str, ...]) -> str:
    ends = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    return text[: min(ends)[1]] if ends else text


@pytest.mark.parametrize("seed", range(60))
def test_any_cutting_gives_the_same_text(seed):
    draw = random.Random(seed)
    text = "".join(draw.choice(["a", "b", "ab", "é", "语", "🌱", "\ufffd", "\n"]) for _ in range(30))
    stops = draw.choice([(), ("aba",), ("ab语", "b\n"), ("🌱é", "语语", "aab")])
    data = text.encode()
    if seed % 3 == 0:  # bytes that are no characters, too
        place = draw.randrange(len(data))
        data = data[:place] + draw.choice([b"\x80", b"\xf0\x9f", b"\xff\xe4"]) + data[place:]
    whole = data.decode("utf-8", "replace")
    cuts = sorted(draw.sample(range(1, len(data)), min(len(data) - 1, draw.randrange(0, 25))))
    stream, _ = stream_all(data, cuts, stops)
    assert stream.text == cut_at_first(whole, stops)
    assert stream.stopped == (stream.text != whole)


def test_text_that_may_become_a_stop_is_held_and_given_back():
    stream, shown = stream_all(b"one END", [3, 5, 6], ("END",))
    assert shown == ["one", " ", "", "", ""] and stream.stopped
    stream, shown = stream_all(b"one ENT", [3, 5, 6], ("END",))
    assert shown == ["one", " ", "", "ENT", ""] and not stream.stopped
    stream, shown = stream_all(b"one EN", [3, 5], ("END",))
    assert shown == ["one", " ", "", "EN"], "the end of the answer gives back what was held"


def test_nothing_is_given_out_behind_a_stop():
    stream, _ = stream_all(b"a###b", [], ("###",))
    assert stream.text == "a"
    assert stream.push(0) == stream.finish() == ""


def test_the_first_of_several_stops_wins():
    stream, _ = stream_all(b"x one two", [], ("two", "one"))
    assert stream.text == "x "


def test_a_character_over_several_tokens_appears_once_and_whole():
    _, shown = stream_all("语!".encode(), [1, 2, 3])
    assert shown == ["", "", "语", "!", ""]


def test_a_cut_character_at_the_end_is_shown_as_a_replacement():
    _, shown = stream_all("a语".encode()[:-1], [1])
    assert "".join(shown) == "a\ufffd"


def test_the_space_before_a_word_is_kept_in_a_continuation():
    import json

    from tokenizers import Tokenizer as Engine
    from tokenizers import decoders, models, pre_tokenizers

    vocabulary = {"</s>": 0, "▁Hello": 1, "▁world": 2, "▁again": 3}
    engine = Engine(models.WordLevel(vocabulary, unk_token="</s>"))
    engine.pre_tokenizer = pre_tokenizers.Metaspace()
    engine.decoder = decoders.Metaspace()
    engine.add_special_tokens(["</s>"])
    tokenizer = Tokenizer(json.loads(engine.to_str()), {"eos_token": "</s>"})
    stream = TextStream(tokenizer)
    assert [stream.push(i) for i in (1, 2, 3)] == ["Hello", " world", " again"]
    continued = TextStream(tokenizer, context=[1])
    assert continued.push(2) == " world"


@pytest.mark.parametrize("seed", range(20))
def test_stop_texts_do_not_depend_on_the_pieces(seed):
    draw = random.Random(seed)
    text = "".join(draw.choice("ab") for _ in range(60))
    stops = ["".join(draw.choice("ab") for _ in range(draw.randrange(4, 9))) for _ in range(2)]
    matcher, shown, rest = StopTexts(stops), "", text
    while rest and not matcher.met:
        size = draw.randrange(1, 7)
        shown, rest = shown + matcher.push(rest[:size]), rest[size:]
    shown += matcher.finish()
    assert shown == cut_at_first(text, tuple(stops))
    assert matcher.met == any(stop in text for stop in stops)
