"""The readable bank inside a model: tokens of entries, keys made of their text, and the index that is searched.

A key says what an entry is about: one half is made of the tokens of its subject, the other of those of its relation's label,
each a gated sum of the model's own token embeddings behind one projection. Nothing else enters, so an entry that is edited or
added is found again once its own key is computed, without training; and names never seen are found because both sides, the
query's attention and the key, carry token embeddings linearly.

Texts and keys' tokens are buffers that no checkpoint holds: they come from the bank's file. The keys of all entries (the index)
are computed every ``refresh_every`` updates; as later weights could not give them again, they belong to the training's state,
and so do the counters of ``usage``. Outside of training the index is computed anew for whatever weights are in place.

>>> bank = KnowledgeBank(8, KnowledgeConfig(knowledge_dim=4))
>>> bank.set_entries(Entries.of(tokens=[[5, 6, 7], [5, 8]], keys=[[5, 6], [5, 8]], subject_lengths=[1, 1]))
>>> table = torch.eye(9, 8)
>>> index = bank.eval().index(table, torch.float32)
>>> index.shape, bank.search(index[:1], index, 2)[1].tolist()
(torch.Size([2, 4]), [[0, 1]])
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lichen.config.errors import ConfigError
from lichen.config.feed_forward import KnowledgeConfig
from lichen.core.streams import Stream
from lichen.model.knowledge_health import Usage, checksum
from lichen.model.knowledge_search import Cells, search_cells, search_exactly

KEY_LENGTH = 16
"""Tokens of a key, as banks are usually tokenised."""
MOST_RELATIONS = 4096
"""Relations that a query is compared with."""
PRECEDENCE = 3.0
"""Nats by which the first entry of a key is ahead of the second, outside of training: a twentieth of its weight is left."""
EXACT_LIMIT = 65536
"""Up to this many entries comparing with every key is the fastest way too."""


@dataclass
class Entries:
    """What a bank holds, as tensors. Padding is 0; lengths say where it begins."""

    tokens: Tensor
    """``[N, L]`` ids of the entries' texts."""
    lengths: Tensor
    """``[N]``."""
    object_start: Tensor
    """``[N]`` first token of the object in the text."""
    object_stop: Tensor
    """``[N]`` the token after the object; equal to the start where there is none."""
    keys: Tensor
    """``[N, K]`` ids of the subject, then of the relation's label."""
    subject_lengths: Tensor
    """``[N]`` how many of them are the subject's."""
    key_lengths: Tensor
    """``[N]`` how many there are."""
    subjects: Tensor
    """``[N]`` equal for entries about one subject."""
    relations: Tensor
    """``[N]`` equal for entries of one relation. Entries that agree in both have one key and can not be told apart."""

    @classmethod
    def of(cls, tokens: Sequence[Sequence[int]], keys: Sequence[Sequence[int]], subject_lengths: Sequence[int]) -> Self:
        """Entries from lists, without objects."""
        nothing = torch.zeros(len(tokens), dtype=torch.int32)
        return cls(
            tokens=_padded(tokens),
            lengths=torch.tensor([len(row) for row in tokens], dtype=torch.int32),
            object_start=nothing,
            object_stop=nothing.clone(),
            keys=_padded(keys),
            subject_lengths=torch.tensor(subject_lengths, dtype=torch.int32),
            key_lengths=torch.tensor([len(row) for row in keys], dtype=torch.int32),
            subjects=torch.arange(len(tokens), dtype=torch.int32),
            relations=torch.arange(len(tokens), dtype=torch.int32),
        )

    def to(self, device: torch.device) -> Entries:
        """The same on ``device``."""
        return Entries(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})

    def checksum(self) -> str:
        """Equal for equal entries."""
        return checksum(*(getattr(self, field.name) for field in fields(self)))

    def __len__(self) -> int:
        return self.tokens.shape[0]


class BankView(Protocol):
    """How one step sees the bank: entry numbers, sorted, with other tokens, and those that are absent."""

    overridden: Tensor
    tokens: Tensor
    removed: Tensor


class Notes(nn.Embedding):
    """What entries learn beside their text: a table, of which rows are read one by one."""

    decays = False


class KnowledgeBank(nn.Module):
    """Entries, their keys and the index; one for all layers that read."""

    def __init__(self, hidden_size: int, section: KnowledgeConfig):
        super().__init__()
        half = section.knowledge_dim // 2
        self.section = section
        self.subject_proj = nn.Linear(hidden_size, half, bias=False)
        self.relation_proj = nn.Linear(hidden_size, half, bias=False)
        self.token_gate = nn.Linear(hidden_size, 2)
        self.notes = Notes(_learning(section), hidden_size) if section.freeze_ratio < 1 else None
        self.entries: Entries | None = None
        """None until the bank is given."""
        self.usage = Usage()
        """What a training counts of its entries."""
        self._updates = self._refreshed = 0
        self._is_stale = True
        self._trained: Tensor | None = None
        self._cells: Cells | None = None
        self._now: tuple[Tensor, Cells | None] | None = None
        self._examples: Tensor | None = None

    def __len__(self) -> int:
        return 0 if self.entries is None else len(self.entries)

    def initialise(self, name: str, parameter: Tensor, generator: torch.Generator) -> bool:
        """All tokens count alike at first."""
        if name.startswith(("token_gate", "notes")):
            parameter.zero_()
            return True
        if name.endswith("proj.weight"):
            first = name.startswith("subject")
            parameter.copy_(key_projections(2 * parameter.shape[0], parameter.shape[1]).chunk(2)[0 if first else 1])
            return True
        return False

    def set_entries(self, entries: Entries) -> None:
        """Take another content; everything is indexed again before it is searched."""
        self.entries = entries.to(self.token_gate.weight.device) if not self.token_gate.weight.is_meta else entries
        self._trained = self._cells = self._now = self._examples = None
        self.usage.reset()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """As of any module; the entries, which are no buffers as a bank is not part of the weights, go along."""
        super()._apply(fn, recurse)
        device = self.token_gate.weight.device
        if self.entries is not None and device.type != "meta" and self.entries.tokens.device != device:
            self.set_entries(self.entries)
        return self

    # ------------------------------------------------------------------ keys

    def encode(self, numbers: Tensor, table: Tensor) -> Tensor:
        """``[U, knowledge_dim]`` keys, each half of length 1, of entries ``numbers [U]``; ``table [V, D]`` embeds tokens."""
        return torch.cat([self._subject_keys(numbers, table), self._relation_keys(numbers, table)], dim=1)

    def encode_all(self, table: Tensor) -> Tensor:
        """The keys of all entries; each subject and each relation is encoded once."""
        entries = self._present()
        subjects = self._subject_keys(_first_of_each(entries.subjects), table)
        relations = self._relation_keys(_first_of_each(entries.relations), table)
        return torch.cat([subjects[entries.subjects.long()], relations[entries.relations.long()]], dim=1)

    def _subject_keys(self, numbers: Tensor, table: Tensor) -> Tensor:
        entries = self._present()
        place = torch.arange(entries.keys.shape[1], device=numbers.device)
        return self._half(numbers, place < entries.subject_lengths[numbers, None], self.subject_proj, 0, table)

    def _relation_keys(self, numbers: Tensor, table: Tensor) -> Tensor:
        entries = self._present()
        place = torch.arange(entries.keys.shape[1], device=numbers.device)
        inside = (place >= entries.subject_lengths[numbers, None]) & (place < entries.key_lengths[numbers, None])
        return self._half(numbers, inside, self.relation_proj, 1, table)

    def _half(self, numbers: Tensor, chosen: Tensor, project: nn.Linear, gate: int, table: Tensor) -> Tensor:
        """A token's part of a key depends on the token alone, so every token is projected once, then summed per entry; in full
        precision, as there are few."""
        ids, inverse = self._present().keys[numbers].unique(return_inverse=True)
        embedded = F.rms_norm(table[ids].float(), table.shape[1:])
        with torch.autocast(embedded.device.type, enabled=False):
            gates = 2 * torch.sigmoid(self.token_gate(embedded)[:, gate, None])
            parts = project(embedded) * gates
        total = F.embedding_bag(inverse, parts, mode="sum", per_sample_weights=chosen.to(parts.dtype))
        return F.normalize(total, dim=-1)

    # ------------------------------------------------------------------ index and search

    def index(self, table: Tensor, dtype: torch.dtype) -> Tensor:
        """``[N, knowledge_dim]`` keys to search among: while training those of the last refresh, else fresh ones."""
        if self.training:
            if self._trained is None or self._is_stale:
                self._trained, self._cells = self._computed(table, dtype, self._cells)
                self._is_stale, self._refreshed = False, self._updates
            return self._trained
        if self._now is None:
            self._now = self._computed(table, dtype, None)
        return self._now[0]

    @torch.no_grad()
    def _computed(self, table: Tensor, dtype: torch.dtype, before: Cells | None) -> tuple[Tensor, Cells | None]:
        keys = self.encode_all(table.detach()).to(dtype)
        return keys, Cells.of(keys, before) if self.searches_cells else None

    @property
    def searches_cells(self) -> bool:
        """Whether two codebooks say where to look, instead of comparing with every key."""
        return self.section.search == "product" or (self.section.search == "auto" and len(self) > EXACT_LIMIT)

    @torch.no_grad()
    def search(
        self, queries: Tensor, index: Tensor, number: int, removed: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The ``number`` best entries for ``queries [n, knowledge_dim]``: scores and entry numbers, ``[n, number]``."""
        number = min(number, len(index))
        cells = self._cells if self.training else self._now[1] if self._now else None
        if cells is not None:
            return search_cells(queries, index, cells, number, removed)
        return search_exactly(queries, index, number, removed)

    def updated(self) -> None:
        """An update was taken; when it is time, the index is computed again before the next search."""
        self.usage.updated()
        self._updates += 1
        self._is_stale |= self._updates % self.section.refresh_every == 0

    def train(self, mode: bool = True) -> Self:
        """Between training and evaluation the weights may have changed: outside of training the index is then computed anew."""
        if mode != self.training:
            self._now = None
        return super().train(mode)

    def active_parameters(self) -> int:
        """Notes are read one by one; the rest makes keys, which is done once per refresh and not per token."""
        return 0 if self.notes is None else self.section.top_k * self.notes.embedding_dim

    def bank_bytes(self) -> int:
        """Texts, keys' tokens and the index, of as many entries as there is room for."""
        entries = self.section.knowledge_num or len(self)
        numbers = self.section.knowledge_length + KEY_LENGTH + 7  # tokens of text and key; lengths, places and groups
        return entries * (4 * numbers + 2 * self.section.knowledge_dim)

    def training_state(self) -> dict[str, Tensor]:
        """What later weights could not give again: the index, its codebooks, when it was computed, and what was counted."""
        if self._trained is None:
            return {}
        updates = torch.tensor([self._updates, int(self._is_stale), self._refreshed])
        state = {"index": self._trained, "updates": updates, **self.usage.state()}
        return state | ({} if self._cells is None else self._cells.state())

    def load_training_state(self, state: dict[str, Tensor]) -> None:
        """Take over what ``training_state`` gave."""
        if state:
            self._trained = state["index"].to(self.token_gate.weight.device)
            self._updates, stale, *refreshed = (int(value) for value in state["updates"])
            self._is_stale, self._refreshed = bool(stale), (refreshed or [0])[0]  # older checkpoints do not say when
            self.usage.load(state)
            self._cells = Cells.from_state(state, self._trained) if self.searches_cells else None

    @property
    def refreshed(self) -> int:
        """After how many updates the index that a training searches was computed."""
        return self._refreshed

    def index_checksum(self) -> str:
        """Of the index that a training searches; equal on ranks that compute alike."""
        return checksum(*(() if self._trained is None else (self._trained,)))

    # ------------------------------------------------------------------ texts

    def texts(self, numbers: Tensor, view: BankView | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Tokens ``[..., L]``, lengths, object start and stop ``[...]`` of entries, as ``view`` sees them."""
        entries = self._present()
        tokens = entries.tokens[numbers].long()
        if view is not None and len(view.overridden):
            place = torch.searchsorted(view.overridden, numbers).clamp(max=len(view.overridden) - 1)
            other = view.overridden[place] == numbers
            tokens = torch.where(other[..., None], view.tokens[place], tokens)
        return tokens, entries.lengths[numbers], entries.object_start[numbers], entries.object_stop[numbers]

    def with_notes(self, texts: Tensor, scores: Tensor, asked: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Entries that may learn have one more token, a vector of their own, zero at first; the text stays what it is.

        ``texts [n, k, L, D]``, ``scores [n, H, k, L]``, ``asked [n, 2 H, D]``, ``numbers [n, k]``: with that token at the end.
        """
        if self.notes is None:
            return texts, scores
        place = numbers - (self._limit - self.notes.num_embeddings)
        note = self.notes(place.clamp(min=0)).to(texts.dtype) * (place >= 0)[..., None]
        own = torch.einsum("nhe,nke->nhk", asked[:, : scores.shape[1]], note).float()
        own = own.masked_fill((place < 0)[:, None], float("-inf"))
        return torch.cat([texts, note[:, :, None]], dim=2), torch.cat([scores, own[..., None]], dim=-1)

    def drift(self) -> Tensor:
        """Mean length of what entries have learnt beside their text, in lengths of a token's embedding (1 after its norm)."""
        if self.notes is None:
            return torch.zeros(())
        return self.notes.weight.detach().float().square().mean(dim=1).sqrt().mean()

    @property
    def _limit(self) -> int:
        return self.section.knowledge_num or len(self)

    def relation_examples(self) -> Tensor:
        """``[R]`` an entry of each relation, of ``MOST_RELATIONS`` at most."""
        if self._examples is None:
            self._examples = _first_of_each(self._present().relations)[:MOST_RELATIONS]
        return self._examples

    def share_subject(self, numbers: Tensor, candidates: Tensor) -> Tensor:
        """``[M, C]``: whether a candidate is about the subject of one of ``numbers [M, P]`` (-1 is nobody)."""
        subjects, known = self._present().subjects, numbers.clamp(min=0)
        same = subjects[known][:, :, None] == subjects[candidates]
        return (same & (numbers >= 0)[:, :, None]).any(dim=1)

    def share_key(self, numbers: Tensor, candidates: Tensor) -> Tensor:
        """``[M, C]``: whether a candidate has the key of one of ``numbers [M, P]`` (-1 is nobody)."""
        entries, known = self._present(), numbers.clamp(min=0)
        same = [part[known][:, :, None] == part[candidates] for part in (entries.subjects, entries.relations)]
        return (same[0] & same[1] & (numbers >= 0)[:, :, None]).any(dim=1)

    def precedence(self, numbers: Tensor) -> Tensor:
        """``[n, k]``: what the score of each entry of ``numbers [n, k]`` loses to those before it in the bank that have its key.

        Nothing tells them apart, and what a head makes of several objects alike is none of them.
        """
        entries = self._present()
        first = numbers[:, :, None] > numbers[:, None]
        same = [part[numbers][:, :, None] == part[numbers][:, None] for part in (entries.subjects, entries.relations)]
        return PRECEDENCE * (first & same[0] & same[1]).sum(dim=2)

    def _present(self) -> Entries:
        assert self.entries is not None, "the bank has no content yet"
        return self.entries


def key_projections(rows: int, width: int) -> Tensor:
    """``[rows, width]``: what both keys and queries begin with, for subjects above and for relations below."""
    matrix = torch.empty(rows, width)
    return nn.init.orthogonal_(matrix, gain=1.0, generator=Stream(0, "knowledge/keys").torch())


def _learning(section: KnowledgeConfig) -> int:
    """How many entries may learn: the last ones of those there is room for."""
    if section.knowledge_num is None:
        raise ConfigError(
            "feed_forward.knowledge_num must be set where freeze_ratio is below 1: learning entries need room"
        )
    return max(1, section.knowledge_num - round(section.freeze_ratio * section.knowledge_num))


def _first_of_each(numbers: Tensor) -> Tensor:
    """For values 0 … m - 1 the place where each first stands, ``[m]``."""
    first = torch.full((int(numbers.max()) + 1 if len(numbers) else 0,), len(numbers), device=numbers.device)
    return first.scatter_reduce(0, numbers.long(), torch.arange(len(numbers), device=numbers.device), "amin")


def _padded(rows: Sequence[Sequence[int]]) -> Tensor:
    width = max((len(row) for row in rows), default=1)
    return torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], dtype=torch.int32).view(-1, width)


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
