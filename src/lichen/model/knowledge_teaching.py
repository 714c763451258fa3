"""What teaches the queries of a readable memory, beside the language loss.

``linked``: the data says which entries a text speaks of (`Links`). At a linked position one of them shall be found, and at a
position known to need nothing the null slot; the loss compares with all entries that any such position found, and with the right
ones. Entries with the same key can not be told apart: they are right together and never negatives.

``self-supervised``: no links. Of the entries a position found, those whose object holds the token to come are right; where none
does, the null slot is. Positions are a regular sample.

``language-loss`` and ``hard`` teach nothing here. Measured on running text, the language loss alone leaves a memory decorative;
these modes are there to show it.

>>> from lichen.config.feed_forward import KnowledgeConfig
>>> from lichen.core.batch import Batch
>>> from lichen.model.knowledge import Retrieval
>>> from lichen.model.rope import Rope
>>> from lichen.config.model import ModelConfig
>>> layout = Layout.of(
...     Batch.of_tokens(torch.zeros(1, 2, dtype=torch.long)), Rope(ModelConfig(hidden_size=8, num_attention_heads=2)),
...     dtype=torch.float32,
... )
>>> section = KnowledgeConfig(knowledge_dim=4)  # linked, and the batch has no links
>>> losses(Retrieval(8, section), KnowledgeBank(8, section), torch.zeros(2, 8), layout)
{}
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lichen.core.batch import IGNORE_TARGET, Links
from lichen.model.feed_forward import Aux
from lichen.model.knowledge_bank import KnowledgeBank
from lichen.model.layout import Layout

if TYPE_CHECKING:
    from lichen.model.knowledge import Retrieval

SAMPLED = 8
"""Without links one position in so many is taught."""


def losses(retrieval: Retrieval, bank: KnowledgeBank, states: Tensor, layout: Layout) -> Aux:
    """The router's losses of ``states [n, D]``, and how often it is right. Nothing where nothing teaches."""
    batch = layout.batch
    if batch is None or retrieval.section.router not in ("linked", "self-supervised"):
        return {}
    if retrieval.section.router == "linked":
        return {} if batch.links is None else _linked(retrieval, bank, states, batch.links, layout)
    return _self_supervised(retrieval, bank, states, batch.targets.flatten(), layout) if retrieval.training else {}


def _linked(retrieval: Retrieval, bank: KnowledgeBank, states: Tensor, links: Links, layout: Layout) -> Aux:
    width = layout.real.shape[1]
    linked, nothing = (places[:, 0] * width + places[:, 1] for places in (links.positions, links.nulls))
    queries, plain, null, numbers = _ask(retrieval, bank, states[torch.cat([linked, nothing])], layout, links.removed)
    about = [] if links.carried_entries is None else [links.carried_entries]
    candidates = torch.cat([numbers.flatten(), links.entries[links.entries >= 0], *about]).unique()
    keys = _keys(bank, layout, candidates)
    aux = _compared(keys, queries, null, bank.share_key(links.entries, candidates))
    answers = bank.share_subject(links.entries, candidates)
    aux["router_subject"] = _subjects_alone(keys, queries[: len(linked)], plain, answers)
    if links.carried is not None and links.carried_entries is not None and len(links.carried):
        carried = links.carried[:, 0] * width + links.carried[:, 1]
        answers = bank.share_subject(links.carried_entries[:, None], candidates)
        aux["router_carry"] = _subjects_alone(keys, retrieval.queries(states[carried])[0], None, answers)
    return aux


def _keys(bank: KnowledgeBank, layout: Layout, candidates: Tensor) -> Tensor:
    assert layout.embedding is not None
    return bank.encode(candidates, layout.embedding.detach())


def _subjects_alone(keys: Tensor, queries: Tensor, null: Tensor | None, answers: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of finding the subject by the first half of a query alone, whatever the relation: where a relation is new, that
    half has to do without the other. ``answers [M, C]``: which of the ``keys [C, d]`` are about it. With ``null`` it has to outdo
    the null slot as well.
    """
    half = queries.shape[1] // 2
    scores = _scores(queries[:, :half], keys[:, :half])
    right = scores.masked_fill(~answers, float("-inf")).logsumexp(dim=1)
    if null is not None:
        scores = torch.cat([scores, null[: len(scores), None]], dim=1)
    return (scores.logsumexp(dim=1) - right).sum(), torch.tensor(float(len(queries)), device=queries.device)


def _self_supervised(retrieval: Retrieval, bank: KnowledgeBank, states: Tensor, targets: Tensor, layout: Layout) -> Aux:
    places = (targets != IGNORE_TARGET).nonzero()[::SAMPLED, 0]
    queries, _, null, numbers = _ask(retrieval, bank, states[places], layout, None)
    tokens, _, start, stop = bank.texts(numbers)
    step = torch.arange(tokens.shape[-1], device=tokens.device)
    in_object = (step >= start[..., None]) & (step < stop[..., None])
    holds = ((tokens == targets[places][:, None, None]) & in_object).any(dim=-1)
    order = (~holds.any(dim=1)).long().argsort(stable=True)  # those with an answer first, as with links
    entries = torch.where(holds, numbers, -1)[order][: int(holds.any(dim=1).sum())]
    candidates = numbers.unique()
    keys = _keys(bank, layout, candidates)
    return _compared(keys, queries[order], null[order], bank.share_key(entries, candidates))


def _ask(
    retrieval: Retrieval, bank: KnowledgeBank, states: Tensor, layout: Layout, removed: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Queries, null scores without and with the best relation's part, and the entries found."""
    assert layout.embedding is not None
    queries, plain = retrieval.queries(states)
    index = bank.index(layout.embedding, layout.dtype)
    null = plain + retrieval.best_relation(queries, bank, index)
    return queries, plain, null, bank.search(queries, index, retrieval.section.top_k, removed)[1]


def _scores(queries: Tensor, keys: Tensor) -> Tensor:
    """Products in full precision: they are few, and the loss is made of their differences."""
    with torch.autocast(queries.device.type, enabled=False):
        return queries @ keys.T


def _compared(keys: Tensor, queries: Tensor, null: Tensor, answers: Tensor) -> Aux:
    """The first queries have an entry for an answer, as ``answers [M, C]`` of the ``keys [C, d]`` says; the others, nothing."""
    scores = _scores(queries, keys)
    whole = torch.cat([scores, null[:, None]], dim=1).logsumexp(dim=1)
    taught = len(answers)
    right = scores[:taught].masked_fill(~answers, float("-inf")).logsumexp(dim=1)
    best, ahead = scores.detach().max(dim=1) if len(keys) else (null.detach() - 1, null.long())
    reads = best > null.detach()
    hits = answers.gather(1, ahead[:taught, None])[:, 0] & reads[:taught]
    count, null_count = (torch.tensor(float(n), device=queries.device) for n in (taught, len(queries) - taught))
    return {
        "router": ((whole[:taught] - right).sum(), count),
        "router_null": ((whole - null)[taught:].sum(), null_count),
        "router_hit": (hits.float().sum(), count),
        "router_false_read": (reads[taught:].float().sum(), null_count),
    }


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
