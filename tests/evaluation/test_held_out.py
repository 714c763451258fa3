"""Held-out text: every target once, as the model itself gives it, and the same bits per byte as validation."""

import json
import math
from typing import Any

import numpy as np
import pytest
import torch

from lichen.config.errors import LichenError, UsageError
from lichen.config.model import ModelConfig
from lichen.core.batch import Batch
from lichen.dataset.tokenizer import Tokenizer
from lichen.evaluation.held_out import HeldOut, nats_per_document
from lichen.model.language_model import LanguageModel, initialise

TEXTS = ["the cat sat on the mat, and the hat sat on the cat", "杜甫出生于巩县", "a hat", "the mat is not a cat " * 4]


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(TEXTS * 8, vocab_size=380)


@pytest.fixture(scope="module")
def model(tokenizer):
    size: dict[str, Any] = {
        "hidden_size": 16,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "max_position_embeddings": 64,
    }
    made = initialise(LanguageModel(ModelConfig(vocab_size=tokenizer.vocab_size, **size)), seed=0)
    made.model.norm.weight.data.fill_(4.0)  # opinions strong enough to tell places apart
    return made


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "held.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS), encoding="utf-8")
    return file


def by_hand(model, ids, context):
    """The document cut into pieces, each read alone."""
    total = 0.0
    for start in range(0, len(ids) - 1, context):
        piece = torch.tensor([ids[start : start + context + 1]])
        with torch.inference_mode():
            logits = model(Batch.of_tokens(piece[:, :-1]), want="logits").logits[0].double().log_softmax(-1)
        total -= sum(logits[place, token].item() for place, token in enumerate(piece[0, 1:].tolist()))
    return total


@pytest.mark.parametrize(("context", "at_once"), [(64, 4096), (64, 1), (7, 4096), (7, 20)])
def test_every_target_is_counted_once_with_the_context_it_has(model, tokenizer, path, context, at_once):
    held = HeldOut.read([path], tokenizer)
    found = nats_per_document(model, held.documents, context, at_once)
    for number, text in enumerate(held.texts):
        ids = [*tokenizer.document_prefix, *tokenizer.encode(text), tokenizer.end_of_text_id]
        assert held.documents.tokens(number).tolist() == ids
        assert found[number] == pytest.approx(by_hand(model, ids, context), rel=1e-5)
    assert held.documents.bytes.tolist() == [len(text.encode()) for text in held.texts]


def test_bits_per_byte_are_those_of_validation(trained_run, prepared, made_text):
    from lichen.dataset.loader import ValidationBatches
    from lichen.dataset.plan import Plan
    from lichen.dataset.shards import Prepared
    from lichen.inference.loading import load
    from lichen.trainer.objectives import NextToken
    from lichen.trainer.runtime import Runtime
    from lichen.trainer.validation import validate

    model, tokenizer = load(trained_run, "cpu")
    documents: Any
    (documents,) = Prepared.open(prepared).documents("validation")
    batches = ValidationBatches(Plan(documents, 64, 0), 4, tokenizer.pad_id)
    runtime = Runtime.start("fp32", device="cpu")
    theirs = validate(model, NextToken(), batches, 0, runtime, lambda: False)
    texts = {tokenizer.decode(documents.tokens(n)) for n in range(len(documents))}
    held = HeldOut.read([made_text], tokenizer)
    chosen = np.array([text in texts for text in held.texts])
    assert 0 < chosen.sum() < len(chosen)
    nats = nats_per_document(model, held.documents, 64)[chosen].sum()
    ours = nats / math.log(2) / held.documents.bytes[chosen].sum()
    assert theirs is not None and ours == pytest.approx(theirs.bits_per_byte, rel=1e-5)


def test_a_text_file_is_read_by_paragraphs_and_normalised(tokenizer, tmp_path):
    (tmp_path / "a.txt").write_bytes(b"moss\r\n\r\n" + b"x" * 2000 + b"\n\nbark\n")
    held = HeldOut.read([tmp_path / "a.txt"], tokenizer)
    assert held.texts == ["moss\n\n" + "x" * 2000, "bark"]


def test_a_drawn_part_keeps_the_order_and_grows_with_its_number(tokenizer, path):
    few, more = (HeldOut.read([path], tokenizer, most=count, seed=4).texts for count in (2, 3))
    assert len(few) == 2 and set(few) < set(more) and more == [t.strip() for t in TEXTS if t.strip() in more]


def test_beginnings_are_whole_segments_of_the_first_documents(tokenizer, path):
    held = HeldOut.read([path], tokenizer)
    found = held.beginnings(tokens=11, context=8)
    assert [found.tokens(n).tolist() for n in range(len(found))] == [
        held.documents.tokens(n)[:9].tolist() for n in range(2)
    ]
    assert len(held.beginnings(tokens=1, context=8)) == 1


def test_a_bad_line_and_an_empty_file_are_named(tokenizer, tmp_path):
    file = tmp_path / "held.jsonl"
    file.write_text('{"text": "moss"}\n\n{"txet": "bark"}\n', encoding="utf-8")
    with pytest.raises(LichenError, match=r"held\.jsonl, line 3: no text .*nearest: txet"):
        HeldOut.read([file], tokenizer)
    file.write_text('{"text": ""}\n', encoding="utf-8")
    with pytest.raises(LichenError, match="no text in there"):
        HeldOut.read([file], tokenizer)
    with pytest.raises(UsageError, match=r"nearest: held\.jsonl"):
        HeldOut.read([tmp_path / "hold.jsonl"], tokenizer)


def test_nothing_is_left_behind_and_a_diverged_model_is_no_score(model, tokenizer, path):
    import copy

    held = HeldOut.read([path], tokenizer)
    model.train()
    nats_per_document(model, held.documents, 16)
    assert model.training and all(parameter.grad is None for parameter in model.parameters())
    model.eval()
    with pytest.raises(UsageError, match="64 positions"):
        nats_per_document(model, held.documents, 65)
    broken = copy.deepcopy(model)
    broken.model.norm.weight.data.fill_(float("nan"))
    with pytest.raises(LichenError, match="not finite"):
        nats_per_document(broken, held.documents, 16)
