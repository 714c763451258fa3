"""Giving a model with a readable memory its facts, from the folder of a run or from anywhere.

A run keeps its bank as ``RUN/knowledge``: what `lichen knowledge` edits there is what the next generation reads, without
training. Checkpoints hold no facts, only what was learnt about reading them.

>>> from lichen.config.model import ModelConfig
>>> from lichen.dataset.facts import made_fact
>>> tokenizer = Tokenizer.train(["Ada was born in London"] * 4, vocab_size=340)
>>> settings = {"vocab_size": 340, "hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1}
>>> settings["feed_forward"] = {"kind": "knowledge", "knowledge_dim": 4}
>>> model = LanguageModel(ModelConfig.from_data(settings))
>>> give_facts(model, [made_fact("Ada", "place of birth", "London")], tokenizer)
>>> len(memory_of(model))
1
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from lichen.config.errors import LichenError
from lichen.dataset.bank import Bank
from lichen.dataset.bank_arrays import BankArrays
from lichen.dataset.facts import Fact
from lichen.dataset.tokenizer import Tokenizer
from lichen.model.knowledge_bank import Entries, KnowledgeBank
from lichen.model.language_model import LanguageModel

KNOWLEDGE = "knowledge"
"""The bank's folder, in a run and in prepared data."""


def memory_of(model: LanguageModel) -> KnowledgeBank | None:
    """The bank inside ``model``; None where no layer reads from one."""
    found = dict(model.shared.items()).get(KNOWLEDGE)
    assert found is None or isinstance(found, KnowledgeBank)
    return found


def find_bank(checkpoint: Path) -> Path | None:
    """The folder of the bank that belongs to a checkpoint: in it, or in the run that it lies in."""
    places = [checkpoint / KNOWLEDGE, checkpoint.absolute().parent.parent / KNOWLEDGE]
    return next((place for place in places if place.is_dir()), None)


def give_bank(
    model: LanguageModel,
    folder: Path | None,
    tokenizer: Tokenizer,
    where: str = "the model",
    cache: Path | None = None,
) -> Bank | None:
    """Let ``model``, if it reads facts, read the bank in ``folder``; its token ids are kept in ``cache``, or beside it.

    Raises LichenError if there is no bank, or the model has no room for it.
    """
    memory = memory_of(model)
    if memory is None:
        return None
    if folder is None:
        raise LichenError(
            f"{where} reads facts and there is no bank of them: put one at RUN/{KNOWLEDGE} (lichen knowledge build)"
        )
    bank = Bank.open(folder)
    limit = memory.section.knowledge_num
    if limit is not None and len(bank) > limit:
        raise LichenError(
            f"{folder} has {len(bank)} facts and the model room for {limit}: raise feed_forward.knowledge_num"
        )
    memory.set_entries(entries_of(BankArrays.of_bank(bank, tokenizer, memory.section.knowledge_length, cache=cache)))
    return bank


def give_facts(model: LanguageModel, facts: Sequence[Fact], tokenizer: Tokenizer) -> None:
    """Let ``model`` read exactly ``facts``. Raises LichenError for a model that reads none."""
    memory = memory_of(model)
    if memory is None:
        raise LichenError("this model has no layer of kind knowledge, so it reads no facts")
    memory.set_entries(entries_of(BankArrays.of(facts, tokenizer, memory.section.knowledge_length)))


@contextmanager
def facts_instead(model: LanguageModel, facts: Sequence[Fact], tokenizer: Tokenizer) -> Iterator[None]:
    """``model`` reads ``facts`` for a while, and then what it read before."""
    memory = memory_of(model)
    before = None if memory is None else memory.entries
    give_facts(model, facts, tokenizer)
    try:
        yield
    finally:
        if memory is not None and before is not None:
            memory.set_entries(before)


def entries_of(arrays: BankArrays) -> Entries:
    """The same as tensors; groups are numbered without gaps."""
    return Entries(
        tokens=torch.from_numpy(arrays.entries),
        lengths=_int(arrays.lengths),
        object_start=_int(arrays.object_start),
        object_stop=_int(arrays.object_stop),
        keys=torch.from_numpy(arrays.keys),
        subject_lengths=_int(arrays.subject_lengths),
        key_lengths=_int(arrays.key_lengths),
        subjects=_int(np.unique(arrays.subject_ids, return_inverse=True)[1]),
        relations=_int(np.unique(arrays.relation_ids, return_inverse=True)[1]),
    )


def _int(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array.astype(np.int32))


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
