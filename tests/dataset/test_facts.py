import pytest

from lichen.config.errors import UsageError
from lichen.dataset.facts import (
    Fact,
    fact_id,
    fact_of_data,
    has_made_text,
    in_running_text,
    is_untidy,
    made_fact,
    object_place,
    places_of,
    problem_of,
    rewritten,
    tidy,
)
from lichen.dataset.tokenizer import Tokenizer

ADA = Fact("a", "Ada was born in London.", "Ada", "place of birth", "London", "x.jsonl")


@pytest.mark.parametrize(
    ("object", "sentence"),
    [("Paris", "They met in Paris."), ("北京", "他住在北京。"), ("서울", "그는 서울 에")],
)
def test_the_object_has_the_tokens_it_has_in_running_text(object: str, sentence: str) -> None:
    made = made_fact("Ada", "出生地" if not object.isascii() else "place of birth", object).text
    tokenizer = Tokenizer.train([sentence, made, object] * 3, vocab_size=420)
    own = tokenizer.encode(in_running_text(object))
    assert tokenizer.encode(made)[-len(own) :] == own


def test_ids_depend_on_the_content_alone() -> None:
    assert made_fact("Ada", "job", "poet", source="a").id == made_fact("Ada", "job", "poet", source="b").id
    assert len({fact_id("ab", "c"), fact_id("a", "bc"), fact_id("abc")}) == 3


def test_plain_data_leaves_out_what_is_empty_and_reads_back() -> None:
    assert Fact("1", "moss").to_data() == {"id": "1", "text": "moss"}
    assert fact_of_data(ADA.to_data()) == ADA
    for data, words in (
        ({"id": "1", "text": "a", "objct": "b"}, "nearest: object"),
        ({"id": "1"}, "text is missing"),
        ({"id": "1", "text": 3}, "text is no text"),
    ):
        with pytest.raises(ValueError, match=words):
            fact_of_data(data)


@pytest.mark.parametrize("character", ["\x00", "\x1b", "\n", "\x7f", "\x9b", "\u2028", "\u202e", "\ud800"])
def test_what_a_reader_would_not_see_is_no_fact(character: str) -> None:
    for name in ("text", "subject", "object", "source", "id"):
        problem = problem_of(Fact(**{"id": "1", "text": "moss", name: f"a{character}b"}))
        assert problem is not None and problem[0] == "control_character" and name in problem[1]
    assert problem_of(Fact("1", "Ä — 苔 \u00a0 é")) is None


def test_white_space_is_made_single_but_control_characters_stay_to_be_refused() -> None:
    assert tidy(" a\t\nb\u3000c ") == "a b c"
    assert tidy("a\x1c b") == "a\x1c b"
    assert not is_untidy("a b") and is_untidy("a  b") and is_untidy(" a") and is_untidy("a\u00a0b")


def test_the_object_is_found_as_a_word_and_outside_the_subject() -> None:
    assert places_of("an", "Iran is an Iran") == [8]
    assert object_place(Fact("1", "New York lies in York state", "New York", "in", "York")) == 17
    assert (
        object_place(Fact("1", "York, York", "York", "near", "York")) == 0
    )  # nothing but the subject: better than none
    assert object_place(Fact("1", "no such thing", "a", "b", "c")) is None
    assert object_place(made_fact("London", "near", "London")) == len("London — near: ")


def test_a_made_text_is_made_anew() -> None:
    after = rewritten(made_fact("杜甫", "出生地", "巩县", id="d"), object="Luoyang")
    assert after.text == "杜甫 — 出生地: Luoyang" and after.id == "d" and has_made_text(after)


def test_a_written_text_follows_where_it_is_clear_how() -> None:
    assert rewritten(ADA, object="Rome", subject="Eve").text == "Eve was born in Rome."
    assert rewritten(ADA, relation="birthplace").text == ADA.text
    assert rewritten(ADA, text="London saw her first.").object == "London"
    twice = Fact("1", "Rome is in Rome.", "x", "y", "Rome")
    with pytest.raises(UsageError, match="2 times: give the new text"):
        rewritten(twice, object="Paris")
    with pytest.raises(UsageError, match="not at all"):
        rewritten(Fact("1", "nothing", "x", "y", "Rome"), object="Paris")


def test_text_and_object_may_not_contradict_each_other() -> None:
    with pytest.raises(UsageError, match="give the new object as well"):
        rewritten(ADA, text="Ada was born in Paris.")
    with pytest.raises(UsageError, match="change the text"):
        rewritten(ADA, text="Ada was born in Paris.", object="Rome")
    assert rewritten(ADA, text="Ada was born in Paris.", object="Paris").object == "Paris"
    with pytest.raises(UsageError, match="nearest: object"):
        rewritten(ADA, objct="Paris")
    with pytest.raises(UsageError, match="no field 'id'"):
        rewritten(ADA, id="b")
