"""Reading from a bank of facts: every position asks with its own state, and reads the tokens of what it finds.

A position's query (one half for the subject, one for the relation) is compared with the keys of all entries; the best ``top_k``
and a null slot, whose score is the position's own, share its attention (`Retrieval`). Heads then attend to the tokens of these
entries, each token's score raised by its entry's, and what they mix is added to the position's residual stream and to nothing
else (`Reader`): so neither packing nor a cache needs to know of it. Token scores are taken against ``Wkᵀ q`` and ``Wv`` is
applied to the mixture, so that no token of an entry is ever projected. A token is looked at together with the one before it,
which lets a head go on inside a name as an induction head does (Olsson et al., 2022).

Where the null slot wins by so much that the best possible key could not change the result, nothing is searched; where it wins
over the keys found, nothing is read. A hook on ``retrieval`` sees what was found, see `Found`.

>>> from lichen.model.knowledge_bank import Entries
>>> from lichen.model.language_model import LanguageModel, initialise
>>> from lichen.core.batch import Batch
>>> settings = {"vocab_size": 9, "hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1}
>>> settings["feed_forward"] = {"kind": "knowledge", "knowledge_dim": 4, "router": "language-loss"}
>>> model = initialise(LanguageModel(ModelConfig.from_data(settings)), seed=0).eval()
>>> entries = Entries.of(tokens=[[5, 6, 7], [5, 8]], keys=[[5, 6], [5, 8]], subject_lengths=[1, 1])
>>> model.shared["knowledge"].set_entries(entries)
>>> found = []
>>> retrieval = model.model.layers[0].mlp.retrieval
>>> hook = retrieval.register_forward_hook(lambda module, given, output: found.append(output))
>>> model(Batch.of_tokens(torch.tensor([[5, 6, 5]])), want="logits").meters
{'layers.0.reads': tensor(3)}
>>> found[0].numbers.shape, found[0].weights().sum(dim=1).round().tolist()
(torch.Size([3, 2]), [1.0, 1.0, 1.0])
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lichen.config.errors import ConfigError, LichenError
from lichen.config.feed_forward import DenseConfig, KnowledgeConfig
from lichen.config.model import ModelConfig
from lichen.core.batch import Links
from lichen.model import knowledge_teaching
from lichen.model.feed_forward import Aux, Dense, FeedForward
from lichen.model.knowledge_bank import EXACT_LIMIT, KnowledgeBank, key_projections
from lichen.model.knowledge_search import compared_in_cells
from lichen.model.layout import Layout
from lichen.model.regions import eager
from lichen.model.shapes import padded

SHARED = "knowledge"
"""Where the bank lies among the model's shared parts."""
NULL_LOGIT = 16.0
"""Where the null slot begins if labels teach it: above what random keys score, so that nothing is read before it can be found."""
NEGLIGIBLE = 5.0
"""Then positions whose null slot is ahead by this many nats read nothing (0.7 % at most)."""
SCALE = (24.0, 6.0)
"""Lengths of a query's halves in the beginning; a key's have length 1. The subject decides, and the relation among its entries:
then a relation that was never met still leaves the right subject ahead."""
LOOKED_AT_ONCE = 1 << 23
"""Numbers in the texts of entries that are looked at together on a CPU."""
ON_A_GPU = 64
"""There so many times as many."""
KEPT = 1 << 26
"""Up to so many numbers the texts are kept for the backward pass; more are looked up again, which takes a third longer."""
WIDTHS = 8
"""Texts that are looked at together are cut to a multiple of so many tokens."""
AROUND = -8.0
"""How much tokens around an object are behind its own at first, which is what a token equal to the present one is ahead by: after
"is part of" the label "part of" would otherwise be read on, and not the object."""
PLACES = (AROUND, 2.0, 1.0, -2.0, AROUND)
"""What a token's score begins with before the object, as its first, as one of its others, right behind it, and further on. What
follows the object is looked at where the object's last token was said, which is ahead by as much as ``AROUND`` is behind."""


@dataclass
class Found:
    """What the positions of a batch found in the bank."""

    where: Tensor
    """``[m]`` flat positions that read."""
    numbers: Tensor
    """``[m, k]`` entry numbers."""
    scores: Tensor
    """``[m, k]`` their scores, with gradient."""
    null: Tensor
    """``[m]`` the score of reading nothing."""

    def weights(self) -> Tensor:
        """``[m, k + 1]`` shares of attention that entries and, last, the null slot have before their tokens are looked at."""
        return torch.cat([self.scores, self.null[:, None]], dim=1).softmax(dim=1)

    def at(self, rows: Tensor) -> Found:
        """Only some of the positions."""
        return Found(self.where[rows], self.numbers[rows], self.scores[rows], self.null[rows])


class Factors(nn.Module):
    """A few numbers that much depends on; they learn faster than matrices, of which each entry matters less."""

    lr_scale = 3.0

    def __init__(self, *start: float):
        super().__init__()
        self.start = start
        self.values = nn.Parameter(torch.empty(len(start)))

    def initialise(self, name: str, parameter: Tensor, generator: torch.Generator) -> bool:
        """As given."""
        parameter.copy_(torch.tensor(self.start))
        return True


class Retrieval(nn.Module):
    """From states to entries and scores."""

    def __init__(self, hidden_size: int, section: KnowledgeConfig):
        super().__init__()
        self.section = section
        self.query = nn.Linear(hidden_size, section.knowledge_dim, bias=False)
        self.scale = Factors(*SCALE)
        self.null = nn.Linear(hidden_size, 1)

    def initialise(self, name: str, parameter: Tensor, generator: torch.Generator) -> bool:
        """Queries begin with the projections that make keys, so that words find themselves; a taught null slot above all keys."""
        if name == "query.weight":
            parameter.copy_(key_projections(*parameter.shape))
        else:
            null = NULL_LOGIT if self.is_labelled else 0.0
            parameter.fill_(null if name == "null.bias" else 0.0)
        return True

    @property
    def is_labelled(self) -> bool:
        """Whether something beside the language loss teaches when to read; else every position has to try."""
        return self.section.router in ("linked", "self-supervised")

    def queries(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """``[n, D]`` → queries ``[n, knowledge_dim]``, whose halves have the lengths ``scale``, and null scores ``[n]``."""
        count, states = len(states), padded(states)
        subject, relation = self.query(states)[:count].float().chunk(2, dim=-1)
        halves = [
            F.normalize(subject, dim=-1) * self.scale.values[0],
            F.normalize(relation, dim=-1) * self.scale.values[1],
        ]
        return torch.cat(halves, dim=-1), self.null(states)[:count, 0].float()

    def best_relation(self, queries: Tensor, bank: KnowledgeBank, index: Tensor) -> Tensor:
        """``[n]`` what the best of the bank's relations adds to a score, which the null slot has to be given too.

        So an entry is held against it by how much its relation is behind the best, not by how well the best is known: a fact
        whose relation the text clearly names otherwise is passed over, one whose relation nobody could tell is read.
        """
        keys = index[bank.relation_examples(), index.shape[1] // 2 :]
        if not len(keys):
            return queries.new_zeros(len(queries))
        relations = padded(queries[:, index.shape[1] // 2 :].to(keys.dtype))
        return (relations @ keys.T)[: len(queries)].amax(dim=1).float()

    def forward(self, states: Tensor, bank: KnowledgeBank, layout: Layout, links: Links | None) -> Found:
        """Ask for all of ``states [n, D]`` that are real and do not know already that they need nothing."""
        assert layout.embedding is not None
        queries, null = self.queries(states)
        real = layout.real.flatten()
        where = self._kept(real & (null < self.scale.values[0].abs() + NEGLIGIBLE) if self.is_labelled else real)
        queries, null = queries[where], null[where]
        index = bank.index(layout.embedding, layout.dtype)
        null = null + self.best_relation(queries, bank, index)
        _, numbers = bank.search(queries, index, self.section.top_k, None if links is None else links.removed)
        chosen, place = numbers.unique(return_inverse=True)
        keys = bank.encode(chosen, layout.embedding.detach())
        scores = (queries[:, None] * keys[place]).sum(-1)
        found = Found(where, numbers, scores if self.training else scores - bank.precedence(numbers), null)
        if self.is_labelled:
            return found.at(self._kept(found.scores.logsumexp(dim=1) > null - NEGLIGIBLE))
        return _hardened(found) if self.section.router == "hard" and self.training else found

    def _kept(self, wanted: Tensor) -> Tensor:
        """The places of True; while training at least one, as every parameter is to get a gradient on every rank."""
        places = wanted.nonzero()[:, 0]
        return torch.zeros(1, dtype=torch.long, device=wanted.device) if self.training and not len(places) else places


def _hardened(found: Found) -> Found:
    """One entry, or nothing, drawn with Gumbel noise, with the gradient of the soft choice (Jang et al., 2017)."""
    scores = torch.cat([found.scores, found.null[:, None]], dim=1)
    drawn = F.gumbel_softmax(scores, hard=True, dim=1)
    logits = scores.log_softmax(dim=1) + (drawn.clamp(min=1e-6)).log()
    return Found(found.where, found.numbers, logits[:, :-1], logits[:, -1])


class Reader(nn.Module):
    """From entries and scores to what is added to the residual stream."""

    lr_scale = 0.1
    """Its circuit is there from the start and must not be forgotten while nothing right is found yet."""
    stacked = True

    def __init__(self, hidden_size: int, section: KnowledgeConfig):
        super().__init__()
        heads = section.heads
        if hidden_size % heads:
            raise ConfigError(f"feed_forward.heads = {heads}: the model's width {hidden_size} is not a multiple of it")
        self.heads, self.head_dim = heads, hidden_size // heads
        self.query = nn.Linear(hidden_size, 2 * hidden_size, bias=False)
        self.key = nn.Parameter(torch.empty(2 * heads, self.head_dim, hidden_size))
        self.value = nn.Parameter(torch.empty(heads, self.head_dim, hidden_size))
        self.place = nn.Parameter(torch.empty(heads, len(PLACES)))
        self.output = nn.Linear(hidden_size, hidden_size, bias=False)
        self.gate = Factors(0.0)

    def initialise(self, name: str, parameter: Tensor, generator: torch.Generator) -> bool:
        """Begin as a copying circuit behind a closed gate: heads look within the object for what follows a token like the
        present one, and a little for its first, and hand on what they see as it is.
        """
        identity = torch.eye(self.heads * self.head_dim)
        if name == "place":
            parameter.copy_(torch.tensor(PLACES).expand_as(parameter))
        elif name == "query.weight":  # the first half asks for the token itself, the second for the one before it
            parameter.copy_(torch.cat([torch.zeros_like(identity), identity]))
        else:
            parameter.copy_(identity.repeat(parameter.numel() // identity.numel(), 1).view_as(parameter))
        return True

    def forward(
        self, states: Tensor, found: Found, bank: KnowledgeBank, embedding: Tensor, links: Links | None
    ) -> Tensor:
        """``[m, D]`` what is read at the positions of ``found``; ``states [n, D]`` of all.

        Texts of entries are many times as large as what is made of them, so they are looked at part by part, and if they are too
        many to be kept for the backward pass, again then.
        """
        where, numbers, scores, null = map(padded, (found.where, found.numbers, found.scores, found.null))
        tokens, *places = bank.texts(numbers, links)
        width = min(tokens.shape[-1], -(-int(places[0].max()) // WIDTHS) * WIDTHS)
        query = self.query(states[where]).unflatten(-1, (2 * self.heads, self.head_dim))
        asked = torch.einsum("nhd,hde->nhe", query, self.key.to(query.dtype))
        table = F.rms_norm(embedding.detach().float(), embedding.shape[1:]).to(asked.dtype)
        most = LOOKED_AT_ONCE if asked.device.type == "cpu" else ON_A_GPU * LOOKED_AT_ONCE
        size = numbers.shape[1] * width * table.shape[1]
        rows = 1 << max(0, (most // size).bit_length() - 1)
        look = self._mixed if len(numbers) * size <= KEPT or not torch.is_grad_enabled() else self._mixed_again
        given = (asked, scores, null, numbers, tokens[..., :width], *places)
        mixed = [look(bank, table, *part) for part in zip(*(each.split(rows) for each in given), strict=True)]
        read = self.output(torch.einsum("nhe,hde->nhd", torch.cat(mixed), self.value.to(asked.dtype)).flatten(1))
        return self.gate.values * read[: len(found.where)]

    def _mixed_again(self, *given: Any) -> Tensor:
        """``_mixed``, computed again in the backward pass."""
        again = checkpoint(self._mixed, *given, use_reentrant=False, preserve_rng_state=False)
        return cast(Tensor, again)

    def _mixed(
        self,
        bank: KnowledgeBank,
        table: Tensor,
        asked: Tensor,
        found: Tensor,
        null: Tensor,
        numbers: Tensor,
        tokens: Tensor,
        lengths: Tensor,
        start: Tensor,
        stop: Tensor,
    ) -> Tensor:
        """``[m, H, D]`` what each head mixes of the ``tokens [m, k, L]`` of entries with the scores ``found [m, k]``."""
        texts = F.embedding(tokens, table)
        scores = torch.einsum("nhe,nkle->nhkl", asked, texts).float() * self.head_dim**-0.5
        own, before = scores.chunk(2, dim=1)
        step = torch.arange(tokens.shape[-1], device=tokens.device)
        borders = (step >= start[..., None], step > start[..., None], step >= stop[..., None], step > stop[..., None])
        part = torch.stack(borders).long().sum(dim=0)
        own = own + F.pad(before[..., :-1], (1, 0)) + self.place.float()[:, part].transpose(0, 1)
        own = own.masked_fill((step >= lengths[..., None])[:, None], float("-inf"))
        texts, own = bank.with_notes(texts, own, asked, numbers)
        own = (own + found[:, None, :, None]).flatten(2)
        nothing = null[:, None, None].expand(-1, self.heads, 1)
        weights = torch.cat([own, nothing], dim=-1).softmax(dim=-1)[..., :-1].to(texts.dtype)
        return torch.bmm(weights, texts.flatten(1, 2))


class Knowledge(FeedForward):
    """The reading of one layer, with a dense part beside it or without."""

    def __init__(self, config: ModelConfig, section: KnowledgeConfig, shared: nn.ModuleDict):
        super().__init__()
        self._owned: tuple[KnowledgeBank, ...] = ()
        if SHARED not in shared:
            shared[SHARED] = KnowledgeBank(config.hidden_size, section)
            self._owned = (cast(KnowledgeBank, shared[SHARED]),)  # a tuple, or it would be saved with this layer too
        _check_agree(cast(KnowledgeBank, shared[SHARED]).section, section)
        self.beside = _beside(config, section.beside)
        self.retrieval = Retrieval(config.hidden_size, section)
        self.reader = Reader(config.hidden_size, section)

    def forward(self, x: Tensor, layout: Layout) -> tuple[Tensor, Aux]:
        """See ``FeedForward.forward``."""
        read, aux = self._read_bank(x, layout)
        return read if self.beside is None else self.beside(x, layout)[0] + read, aux

    @eager
    def _read_bank(self, x: Tensor, layout: Layout) -> tuple[Tensor, Aux]:
        bank = cast(KnowledgeBank, layout.shared[SHARED])
        assert layout.embedding is not None
        if bank.entries is None:  # a memory that is not there must not pass for one that found nothing
            raise LichenError(
                "this model reads facts and was given none: load it from its run, or give it a bank with "
                "lichen.inference.memory.give_bank(model, folder, tokenizer)"
            )
        if len(bank) == 0:
            return torch.zeros_like(x), {}
        states = x.flatten(0, 1)
        links = layout.batch.links if layout.batch is not None and self.training else None
        found: Found = self.retrieval(states, bank, layout, links)
        if self.training and bank.usage.watched and layout.batch is not None:
            bank.usage.note(self, layout.batch, found, links, x.shape[1], len(bank))
        y = torch.zeros_like(states)
        if len(found.where):
            read = self.reader(states, found, bank, layout.embedding, links)
            y = y.index_copy(0, found.where, read.to(states.dtype))
        aux = knowledge_teaching.losses(self.retrieval, bank, states, layout)
        return y.view_as(x), aux | {"reads": torch.tensor(len(found.where), device=x.device)}

    def flops_per_token(self) -> int:
        """Beside the matrices: comparing with keys, and looking at the tokens of what was found, at every position."""
        section, width = self.retrieval.section, self.reader.query.in_features
        tokens = section.top_k * section.knowledge_length
        matrices = [p.numel() for p in self.parameters() if p.dim() >= 2]
        looking = 2 * 3 * self.reader.heads * tokens * width  # two scores and one mixture per head
        return 2 * sum(matrices) + 2 * compared(section) * section.knowledge_dim + looking

    def after_step(self, counts: Mapping[str, Tensor]) -> None:
        """The bank counts updates, once however many layers read from it."""
        for bank in self._owned:
            bank.updated()


def compared(section: KnowledgeConfig) -> int:
    """With how many keys, about, a query is compared; 0 for a bank whose size the configuration does not tell."""
    entries = section.knowledge_num or 0
    exact = section.search == "exact" or (section.search == "auto" and entries <= EXACT_LIMIT)
    return entries if exact else min(entries, compared_in_cells(entries))


def _beside(config: ModelConfig, section: DenseConfig | None) -> Dense | None:
    return None if section is None else Dense(config.hidden_size, config.dense_intermediate_size(section))


def _check_agree(first: KnowledgeConfig, other: KnowledgeConfig) -> None:
    for name in ("knowledge_num", "knowledge_length", "knowledge_dim", "refresh_every", "search", "freeze_ratio"):
        if getattr(first, name) != getattr(other, name):
            raise ConfigError(f"feed_forward.{name}: all layers read one bank, so it must be the same in all of them")


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
