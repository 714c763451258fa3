"""Tiny models that read a bank, and batches that speak of it."""

from __future__ import annotations

from typing import Any

import torch

from lichen.config.model import ModelConfig
from lichen.core.batch import Batch, Links
from lichen.model.knowledge import Knowledge
from lichen.model.knowledge_bank import Entries, KnowledgeBank
from lichen.model.language_model import LanguageModel, initialise

VOCABULARY = 60
KEYS = [[10 + n, 50 + n % 3] for n in range(9)]
ENTRIES = Entries.of(tokens=[[*key, 30 + n, 31 + n] for n, key in enumerate(KEYS)], keys=KEYS, subject_lengths=[1] * 9)


def model(layers: int = 2, seed: int = 0, **section: Any) -> LanguageModel:
    """A model whose last layer reads; its output weights are not zero, so that reading matters."""
    knowledge = {"kind": "knowledge", "beside": {"kind": "dense"}, "knowledge_dim": 16, "heads": 2, "top_k": 3}
    data = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "feed_forward_by_layer": {str(layers - 1): knowledge | section},
    }
    made = initialise(LanguageModel(ModelConfig.from_data(data)), seed)
    bank_of(made).set_entries(ENTRIES)
    return made


def reading(seed: int = 0, **section: Any) -> LanguageModel:
    """The same after its reading has been stirred: every position reads, and what it reads changes the result."""
    made = model(seed=seed, **section)
    layer = made.model.layers[-1].mlp
    assert isinstance(layer, Knowledge)
    with torch.no_grad():
        layer.reader.gate.values.fill_(1.0)
        layer.retrieval.null.bias.zero_()
        layer.retrieval.null.weight.normal_(std=0.1, generator=torch.Generator().manual_seed(seed))
    return made


def bank_of(made: LanguageModel) -> KnowledgeBank:
    bank = made.shared["knowledge"]
    assert isinstance(bank, KnowledgeBank)
    return bank


def tokens(rows: int = 2, length: int = 12, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(seed))


def links(
    positions: list[list[int]],
    entries: list[list[int]],
    nulls: list[list[int]],
    overridden: dict[int, list[int]] | None = None,
    removed: list[int] | None = None,
) -> Links:
    other = overridden or {}
    return Links(
        positions=torch.tensor(positions, dtype=torch.long).view(-1, 2),
        entries=torch.tensor(entries, dtype=torch.long).view(len(positions), max(map(len, entries), default=1)),
        nulls=torch.tensor(nulls, dtype=torch.long).view(-1, 2),
        overridden=torch.tensor(sorted(other), dtype=torch.long),
        tokens=torch.tensor([other[n] for n in sorted(other)], dtype=torch.long).view(-1, 4),
        removed=torch.tensor(removed or [], dtype=torch.long),
    )


def batch(rows: int = 2, length: int = 12, seed: int = 0) -> Batch:
    """Text without sense, linked at two places."""
    made = Batch.of_tokens(tokens(rows, length, seed))
    made.links = links([[0, 3], [1, 5]], [[2, -1], [4, 7]], [[0, 8], [1, 1]])
    return made
