import runpy
from pathlib import Path

from lichen.dataset.fact_checks import Checker, unknown_words
from lichen.dataset.facts import Fact
from lichen.dataset.tokenizer import Tokenizer

word_tokenizer = runpy.run_path(str(Path(__file__).with_name("word_tokenizers.py")))["word_tokenizer"]


def test_a_word_nobody_knows_is_named() -> None:
    checker = Checker(word_tokenizer("moss", "is", "green"), 8)
    problem = checker.problem(Fact("1", "moss is grun"))
    assert problem == ("unknown_tokens", "the vocabulary does not know 'grun': write it otherwise")
    assert checker.problem(Fact("1", "moss is green")) is None


def test_a_byte_level_tokenizer_knows_everything() -> None:
    tokenizer = Tokenizer.train(["moss"], vocab_size=320)
    assert unknown_words("苔 \U0001f33f", tokenizer.encode("苔 \U0001f33f"), tokenizer) == ""


def test_length_is_counted_in_tokens() -> None:
    tokenizer = word_tokenizer("moss")
    assert Checker(tokenizer, 3).problem(Fact("1", "moss moss moss")) is None
    assert Checker(tokenizer, 3).problem(Fact("1", "moss moss moss moss")) == (
        "too_long",
        "the text has 4 tokens, an entry has 3: shorten it",
    )
    assert Checker(None, 3).problem(Fact("1", "moss " * 9)) is None
    assert (Checker(tokenizer, 3).problem(Fact("1", "a\x00")) or ("",))[0] == "control_character"
