"""How a readable memory fares while it is trained: which entries the text speaks of, which are found, which are read.

Three counters per entry, of positions of the training text:

- *linked*: labels say that the entry answers here;
- *found*: it does, it is among those looked up here, and it is ahead of the null slot;
- *read*: of all that was looked up here it is ahead, and ahead of the null slot.

They fade with every update: what happened ``WINDOW`` updates ago counts 1 / e. An entry is *dead* if the window has a link to it
and does not have it found (as the dead codes of vector quantisation are told by a decayed count: van den Oord et al., 2017).
*Usage* is spread evenly where the entropy of what is read is near ln N, and has collapsed where it is near 0.

Counting looks at what the forward pass found anyway and changes nothing of it. What a step noted counts once the step is taken:
a micro-batch computed twice is one, a step that is given up is none. With several ranks every rank notes its own rows, and
keeps them until all rows are exchanged (`Usage.settle`); applied in the order of updates, they give the same counts on every
rank, however often that is done. Instead of fading all counters, each update's events weigh a little more than those before.

>>> usage = Usage(entries=4)
>>> usage.add(linked=[0, 1, 1], found=[1], read=[1, 3])
>>> usage.updated()
>>> usage.report()
UsageReport(entries=4, linked=2, dead=1, entropy=0.5)
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from lichen.core.batch import Links
    from lichen.model.knowledge import Found

WINDOW = 1000
"""Updates after which an event counts 1 / e."""
KINDS = ("linked", "found", "read")
HEAVIEST = 2.0
"""Counters are scaled back when the present weight reaches this, so that they stay of the size of counts."""

Event = tuple[Tensor, Tensor]
"""Entry numbers ``[n]`` and which of them are meant ``[n]`` bool; so that no device is waited for."""
Waiting = list[list[list[int]]]
"""Per update, per kind: entry numbers."""


@dataclass(frozen=True)
class UsageReport:
    """What the counters say."""

    entries: int
    linked: int
    """Entries that the text of the window speaks of."""
    dead: int
    """Those of them that are not found."""
    entropy: float
    """Of the distribution of reads over entries, divided by ln N; not a number if nothing is read."""


class Usage:
    """The counters of one bank."""

    def __init__(self, entries: int = 0):
        self.watched = False
        """Whether somebody wants to know: who takes no updates would only gather."""
        self.shared = False
        """Whether other ranks have rows of the same step: then nothing counts before ``settle``."""
        self.reset(entries)

    def reset(self, entries: int = 0) -> None:
        """Nothing happened yet; the number of entries may be left open until something does."""
        self.counts: Tensor = torch.zeros(len(KINDS), entries)
        """``[3, N]`` float32, in units of ``weight``."""
        self.weight = 1.0
        """What an event of the latest update counts."""
        self._noted: dict[tuple[int, int], list[Event]] = {}
        self._waiting: list[list[Event]] = []

    # ------------------------------------------------------------------ one step

    @torch.no_grad()
    def note(self, layer: object, batch: object, found: Found, links: Links | None, width: int, entries: int) -> None:
        """What ``layer`` ``found`` for ``batch``, whose rows are ``width`` positions wide, in a bank of ``entries``. The same
        again, as when activations are computed twice, replaces it.
        """
        if self.counts.shape[1] != entries:
            self.reset(entries)
        self.counts = self.counts.to(found.numbers.device)
        best, place = found.scores.max(dim=1)
        read = (found.numbers.gather(1, place[:, None])[:, 0], best > found.null)
        self._noted[id(layer), id(batch)] = [*_of_links(found, links, width), read]

    def add(self, linked: Sequence[int] = (), found: Sequence[int] = (), read: Sequence[int] = ()) -> None:
        """Note entry numbers by hand, as those of another micro-batch."""
        events = [
            (torch.tensor(numbers, dtype=torch.long), torch.ones(len(numbers), dtype=torch.bool))
            for numbers in (linked, found, read)
        ]
        self._noted[-1, len(self._noted)] = events

    def forget(self) -> None:
        """A new step begins: what was noted since the last update belongs to one that was not taken."""
        self._noted.clear()

    def updated(self) -> None:
        """The step was taken: what was noted counts."""
        noted = list(self._noted.values())
        self._noted.clear()
        events = [_joined([parts[kind] for parts in noted], self.counts.device) for kind in range(len(KINDS))]
        if self.shared:
            self._waiting.append(events)
        else:
            self._apply(events)

    def _apply(self, events: Sequence[Event]) -> None:
        self.weight *= math.exp(1 / WINDOW)
        for counts, (numbers, meant) in zip(self.counts, events, strict=True):
            counts.index_add_(0, numbers, meant.to(counts.dtype), alpha=self.weight)
        if self.weight > HEAVIEST:
            self.counts /= self.weight
            self.weight = 1.0

    # ------------------------------------------------------------------ several ranks

    def waiting(self) -> Waiting:
        """What this rank noted and the others do not know of."""
        return [[numbers[meant].tolist() for numbers, meant in events] for events in self._waiting]

    def settle(self, ranks: Iterable[Waiting]) -> None:
        """Count what was ``waiting`` on all ``ranks``, in their order; the same call on every rank."""
        for parts in zip(*ranks, strict=True):
            numbers = [
                torch.tensor([n for part in parts for n in part[kind]], dtype=torch.long) for kind in range(len(KINDS))
            ]
            events = [(found, torch.ones(len(found), dtype=torch.bool)) for found in numbers]
            self._apply([(a.to(self.counts.device), b.to(self.counts.device)) for a, b in events])
        self._waiting.clear()

    # ------------------------------------------------------------------ what it comes to

    def report(self) -> UsageReport:
        """What the counters say now."""
        linked, found, read = self.counts
        border = self.weight / math.e
        spoken_of = linked >= border
        dead = spoken_of & (found < border)
        return UsageReport(len(linked), int(spoken_of.sum()), int(dead.sum()), normalised_entropy(read))

    def state(self) -> dict[str, Tensor]:
        """For a checkpoint; nothing if nothing was counted. What is not settled is not in it."""
        if not self.counts.numel():
            return {}
        return {"usage": self.counts, "usage_weight": torch.tensor(self.weight, dtype=torch.float64)}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over what ``state`` gave; a state without counters is one in which nothing was counted."""
        self.reset()
        if "usage" in state:
            self.counts, self.weight = state["usage"].clone(), float(state["usage_weight"])


def _of_links(found: Found, links: Links | None, width: int) -> list[Event]:
    """Who is linked, and who of them is found."""
    if links is None:
        return [_nothing(found.numbers.device)] * 2
    position = links.positions[:, 0] * width + links.positions[:, 1]
    place = torch.searchsorted(found.where, position).clamp(max=len(found.where) - 1)
    looked = found.where[place] == position
    ahead = (found.scores[place] > found.null[place, None]) & looked[:, None]  # [M, k]
    same = links.entries[:, :, None] == found.numbers[place][:, None, :]  # [M, P, k]
    numbers, there = links.entries.clamp(min=0).flatten(), links.entries >= 0
    hit = (same & ahead[:, None, :]).any(dim=-1) & there
    return [(numbers, there.flatten()), (numbers, hit.flatten())]


def _joined(events: Sequence[Event], device: torch.device) -> Event:
    parts = [_nothing(device), *((numbers.to(device), meant.to(device)) for numbers, meant in events)]
    return torch.cat([numbers for numbers, _ in parts]), torch.cat([meant for _, meant in parts])


def _nothing(device: torch.device) -> Event:
    return torch.zeros(0, dtype=torch.long, device=device), torch.zeros(0, dtype=torch.bool, device=device)


def normalised_entropy(weights: Tensor) -> float:
    """The entropy of ``weights [N]``, as shares of their sum, divided by ln N: 1 where all are equal, 0 where one has all; not a
    number where nobody has any, or there is only one.

    >>> normalised_entropy(torch.tensor([1.0, 1.0, 0.0, 0.0])), normalised_entropy(torch.zeros(3))
    (0.5, nan)
    """
    total = weights.double().sum()
    if len(weights) < 2 or not total > 0:
        return math.nan
    shares = weights.double() / total
    return float(torch.special.entr(shares).sum()) / math.log(len(weights))


def checksum(*tensors: Tensor) -> str:
    """16 hexadecimal digits that depend on every bit of ``tensors``, wherever they are.

    >>> checksum(torch.tensor([1, 2])) == checksum(torch.tensor([1, 2])) != checksum(torch.tensor([2, 1]))
    True
    """
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        if tensor.numel():
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
