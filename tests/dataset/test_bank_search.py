import math

import numpy as np

from lichen.core.streams import Stream
from lichen.dataset.bank_search import TfIdf, terms_of

TEXTS = [
    "Ada Lovelace — place of birth: London",
    "Ada Lovelace — occupation: poet",
    "杜甫，出生地：巩县",
    "London — capital of: England",
    "the the the the",
]


def test_scores_are_cosines_of_weighted_terms() -> None:
    texts = ["a b b", "a c", "c d"]
    idf = {term: 1 + math.log(4 / (1 + df)) for term, df in {"a": 2, "b": 1, "c": 2, "d": 1}.items()}
    first = {"a": idf["a"], "b": (1 + math.log(2)) * idf["b"]}
    norm = math.sqrt(sum(weight**2 for weight in first.values()))
    strange = 1 + math.log(4)  # a term no text has
    expected = idf["b"] * first["b"] / (norm * math.sqrt(idf["b"] ** 2 + strange**2))
    assert np.allclose(TfIdf(texts).scores("b x"), [expected, 0, 0])
    assert np.allclose(TfIdf(texts).scores("B b A"), [1, TfIdf(texts).scores("b b a")[1], 0])


def test_the_fact_that_is_asked_for_comes_first() -> None:
    index = TfIdf(TEXTS)
    for query, number in (
        ("place of birth of Ada", 0),
        ("ada OCCUPATION", 1),
        ("杜甫在哪里出生", 2),
        ("England's capital", 3),
    ):
        assert index.top(query, 1)[0][0] == number
    scores = [score for _, score in index.top("Ada Lovelace London", 5)]
    assert scores == sorted(scores, reverse=True) and len(scores) == 3


def test_equal_texts_come_in_order_and_strangers_not_at_all() -> None:
    index = TfIdf(["moss", "stone", "moss", "moss"])
    assert [number for number, _ in index.top("moss", 2)] == [0, 2]
    assert [number for number, _ in index.top("moss", 9)] == [0, 2, 3]
    assert index.top("rain", 3) == index.top("", 3) == index.top("moss", 0) == []
    assert TfIdf([]).top("moss", 3) == [] and TfIdf(["", "moss"]).top("moss", 3)[0][0] == 1


def test_many_queries_are_many_single_ones() -> None:
    draw = Stream(0, "texts").numpy()
    texts = [" ".join(f"w{n}" for n in draw.integers(0, 50, 6)) for _ in range(200)]
    index = TfIdf(texts)
    assert index.top_batch(texts[:20], 3) == [index.top(text, 3) for text in texts[:20]]
    assert [found[0][1] for found in index.top_batch(texts, 1)] == [1.0] * 200 or all(
        math.isclose(found[0][1], 1.0) for found in index.top_batch(texts, 1)
    )


def test_terms_of_languages_with_and_without_spaces() -> None:
    assert terms_of("Straße 42, don't") == ["strasse", "42", "don", "t"]
    assert terms_of("a杜甫b") == ["a", "杜", "甫", "杜甫", "b"]
    assert terms_of("，。") == []
