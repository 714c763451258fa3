"""Encoding streams: order, ends, cuts, and no influence of threads or batches."""

import pytest

from lichen.dataset.bank_arrays import BankArrays
from lichen.dataset.facts import made_fact
from lichen.dataset.linking import Linker, checksums
from lichen.dataset.tokenising import Encoded, Encoder
from lichen.dataset.tokenizer import Tokenizer

TEXTS = [f"document {n} 苔藓 " * (n % 7) + str(n) for n in range(200)]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(TEXTS[:50], vocab_size=400)


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 1), (7, 1), (7, 3), (1000, 2)])
def test_threads_and_batches_change_nothing(tokenizer: Tokenizer, batch_size: int, workers: int) -> None:
    found = list(Encoder(tokenizer, batch_size=batch_size, workers=workers).encode(iter(TEXTS)))
    assert [d.ids.tolist() for d in found] == [[*tokenizer.encode(text), 0] for text in TEXTS]
    assert [d.bytes for d in found] == [len(text.encode()) for text in TEXTS]
    assert [d.characters for d in found] == [len(text) for text in TEXTS]


def test_long_documents_are_cut_and_counted(tokenizer: Tokenizer) -> None:
    whole = next(Encoder(tokenizer, workers=1).encode(["苔藓" * 40]))
    cut = next(Encoder(tokenizer, max_length=9, workers=1).encode(["苔藓" * 40]))
    assert len(cut.ids) == 9 and cut.ids[-1] == 0 and cut.ids[:8].tolist() == whole.ids[:8].tolist()
    assert cut.cut == len(whole.ids) - 9
    assert cut.bytes == 3 * cut.characters <= 24 * 2


def test_an_error_while_reading_ends_the_stream(tokenizer: Tokenizer) -> None:
    def texts():
        yield from TEXTS[:20]
        raise RuntimeError("the disk is gone")

    with pytest.raises(RuntimeError, match="the disk is gone"):
        list(Encoder(tokenizer, batch_size=2, workers=2).encode(texts()))


FACTS = [
    made_fact("Ada Lovelace", "place of birth", "London"),
    made_fact("Ada Lovelace", "field", "mathematical logic"),
    made_fact("杜甫", "出生地", "巩县"),
    made_fact("Łódź", "country", "Polska 🌿"),
]
LINKED = [
    "Ada Lovelace was born in London. She did mathematical logic, 苔藓 (in London).",
    "唐代诗人杜甫，巩县人。杜甫生于巩县。",
    "The Łódź of Polska 🌿!",
    "nothing here",
]
OBJECTS = [["London", "mathematical logic", "London"], ["巩县", "巩县"], ["Polska 🌿"], []]


def linked_texts(tokenizer: Tokenizer, documents: list[Encoded]) -> list[list[str]]:
    return [
        [tokenizer.decode(d.ids[link["start"] : link["start"] + link["count"]]) for link in d.links] for d in documents
    ]


@pytest.mark.parametrize("vocab_size", [320, 330, 400, 900])
def test_the_tokens_of_a_link_spell_its_object(vocab_size: int) -> None:
    tokenizer = Tokenizer.train(LINKED * 3, vocab_size=vocab_size)
    documents = list(Encoder(tokenizer, workers=1, linker=Linker(FACTS)).encode(LINKED))
    for texts, objects, document in zip(linked_texts(tokenizer, documents), OBJECTS, documents, strict=True):
        assert len(texts) == len(objects) and document.lost_links == 0
        for text, name, link in zip(texts, objects, document.links, strict=True):
            assert text.strip() == name and link["checksum"] > 0
            before = tokenizer.decode(document.ids[: link["subject"]])
            subject = FACTS[link["entries"][0]].subject
            assert (
                tokenizer.decode(document.ids[link["subject"] :]).strip().startswith(subject) or subject not in before
            )
    assert documents[0].links["entries"].tolist() == [[0, -1, -1, -1], [1, -1, -1, -1], [0, -1, -1, -1]]


def test_objects_have_the_tokens_of_the_bank_where_words_are_spaced() -> None:
    tokenizer = Tokenizer.train([*LINKED, *(fact.text for fact in FACTS)] * 3, vocab_size=500)
    arrays = BankArrays.of(FACTS, tokenizer)
    for document in Encoder(tokenizer, workers=1, linker=Linker(FACTS)).encode(LINKED[:1]):
        for link in document.links:
            entry = link["entries"][0]
            own = arrays.entries[entry, arrays.object_start[entry] : arrays.object_stop[entry]]
            assert document.ids[link["start"] : link["start"] + link["count"]].tolist() == own.tolist()
            assert link["checksum"] == checksums(own[None])[0]


def test_a_text_is_cut_where_tokens_would_reach_over_the_border_of_an_object() -> None:
    tokenizer = Tokenizer.train(["于巩县人"] * 50, vocab_size=340)
    text, encoder = "于巩县人杜甫生于巩县人于巩县人", Encoder(tokenizer, workers=1, linker=Linker(FACTS[:3], window=5))
    whole = tokenizer.encode("于巩县人")
    assert len(whole) == 1  # one token, as long as nothing is linked
    document = next(encoder.encode([text]))
    (link,) = document.links
    own = document.ids[link["start"] : link["start"] + link["count"]]
    assert tokenizer.decode(own) == "巩县" and own.tolist() == tokenizer.encode("巩县")
    assert link["checksum"] == checksums(own[None])[0]
    before, after = document.ids[: link["start"]].tolist(), document.ids[link["start"] + link["count"] : -1].tolist()
    assert before == tokenizer.encode("于巩县人杜甫生于") and after == tokenizer.encode("人于巩县人")
    assert next(encoder.encode(["没有杜甫的巩县"])).links["checksum"][0] > 0


def test_threads_change_no_link(tokenizer: Tokenizer) -> None:
    texts = LINKED * 20
    one = list(Encoder(tokenizer, workers=1, linker=Linker(FACTS)).encode(texts))
    many = list(Encoder(tokenizer, batch_size=3, workers=3, linker=Linker(FACTS)).encode(texts))
    assert [d.links.tobytes() for d in one] == [d.links.tobytes() for d in many]


def test_links_behind_a_cut_are_lost_and_counted(tokenizer: Tokenizer) -> None:
    whole = next(Encoder(tokenizer, workers=1, linker=Linker(FACTS)).encode([LINKED[0]]))
    last = whole.links[-1]
    end = int(last["start"] + last["count"])
    for length, kept in ((end + 1, 3), (end, 2)):
        document = next(Encoder(tokenizer, length, workers=1, linker=Linker(FACTS)).encode([LINKED[0]]))
        assert len(document.ids) == length and len(document.links) == kept and document.lost_links == 3 - kept


def test_a_begin_token_moves_the_links() -> None:
    tokenizer = Tokenizer.train(LINKED * 3, vocab_size=400)
    plain = next(Encoder(tokenizer, workers=1, linker=Linker(FACTS)).encode([LINKED[0]]))
    tokenizer.document_prefix = (0,)
    moved = next(Encoder(tokenizer, workers=1, linker=Linker(FACTS)).encode([LINKED[0]]))
    assert (moved.links["start"] - plain.links["start"]).tolist() == [1, 1, 1]
    assert (moved.links["subject"] - plain.links["subject"]).tolist() == [1, 1, 1]


def other_tokenizer(normalizer: dict[str, object] | None = None) -> Tokenizer:
    """One that spells characters with a mark for spaces, and is not byte-level."""
    characters = sorted(set("▁" + "".join(LINKED).replace(" ", "")))
    data = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": 0,
                "content": "</s>",
                "special": True,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
            }
        ],
        "normalizer": normalizer,
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
        "post_processor": None,
        "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
        "model": {"type": "Unigram", "unk_id": None, "vocab": [["</s>", 0.0], *([c, -3.0] for c in characters)]},
    }
    return Tokenizer(data, {"eos_token": "</s>"})


def test_another_kind_of_tokenizer_is_linked_by_what_it_spells() -> None:
    tokenizer = other_tokenizer()
    documents = list(Encoder(tokenizer, workers=1, linker=Linker(FACTS)).encode(LINKED))
    assert [[text.strip() for text in texts] for texts in linked_texts(tokenizer, documents)] == OBJECTS
    assert [d.ids[:-1].tolist() for d in documents] == [tokenizer.encode(text) for text in LINKED]


def test_a_tokenizer_that_changes_the_text_gives_no_links() -> None:
    tokenizer = other_tokenizer({"type": "Replace", "pattern": {"String": "o"}, "content": "a"})
    document = next(Encoder(tokenizer, workers=1, linker=Linker(FACTS)).encode([LINKED[0]]))
    assert len(document.links) == 0 and document.lost_links == 3
