"""Encoding streams: order, ends, cuts, and no influence of threads or batches."""

import pytest

from lichen.dataset.tokenising import Encoder
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
