"""From logits to the next token: pure functions on ``[B, V]`` float32 logits, with the semantics of `transformers`.

Randomness is one number in [0, 1) per row and token, a pure function of (the row's seed, how many tokens the row has
generated): inverse transform sampling with it makes a row's text independent of who else is in the batch, of other rows
finishing, and of how often the text was asked for. Tokens that must not follow get −∞; a filter that would leave a row
nothing to choose from is not applied to that row.

Penalty: Keskar et al., 2019 (CTRL). Top-k: Fan et al., 2018. Top-p (nucleus): Holtzman et al., 2020.

>>> logits = torch.tensor([[0.0, 1.0, 2.0, 3.0]])
>>> keep_top_k(logits, 2).tolist()
[[-inf, -inf, 2.0, 3.0]]
>>> choose(logits, SamplingConfig(temperature=1.0, top_p=1.0), uniforms=[0.01]).tolist()
[0]
>>> choose(logits, SamplingConfig(greedy=True), uniforms=[0.01]).tolist()
[3]
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lichen.config.errors import UsageError
from lichen.config.generation import SamplingConfig
from lichen.core.streams import Stream

MASKED = float("-inf")
CANDIDATES = 256


def penalize_repetition(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Divide positive and multiply negative ``logits [B, V]`` of tokens ``seen [B, V]`` (bool) by ``penalty``."""
    if penalty == 1:
        return logits
    _require(math.isfinite(penalty) and penalty > 0, "repetition_penalty", penalty, "a positive number; 1 is off")
    return torch.where(seen, torch.where(logits < 0, logits * penalty, logits / penalty), logits)


def forbid(logits: Tensor, banned: Sequence[Sequence[int]]) -> Tensor:
    """Give the ``banned`` tokens of each row −∞, unless that would ban every token of the row."""
    rows = [row for row, tokens in enumerate(banned) for _ in tokens]
    if not rows:
        return logits
    masked = logits.clone()
    masked[rows, [token for tokens in banned for token in tokens]] = MASKED
    nothing_left = (masked == MASKED).all(-1, keepdim=True)
    return torch.where(nothing_left, logits, masked)


def apply_temperature(logits: Tensor, temperature: float) -> Tensor:
    """``logits / temperature``; raises UsageError for what is not a positive finite number."""
    _require(math.isfinite(temperature) and temperature > 0, "temperature", temperature, "positive and finite")
    return logits if temperature == 1 else logits / temperature


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """−∞ for all but the k largest of each row (ties with the k-th stay); 0 keeps all."""
    _require(k >= 0, "top_k", k, "0 (all) or more")
    if k == 0 or k >= logits.shape[-1]:
        return logits
    smallest = torch.topk(logits, k).values[..., -1:]
    return logits.masked_fill(logits < smallest, MASKED)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """−∞ for all but the fewest most probable tokens whose probabilities sum to at least ``p``; at least one stays.

    The tail is only sorted where it is needed: nearly always the set is found among the first few hundred tokens.
    """
    _require(0 < p <= 1, "top_p", p, "above 0 and at most 1")
    if p == 1:
        return logits
    probabilities = logits.softmax(-1)
    ordered, order = torch.topk(probabilities, min(CANDIDATES, logits.shape[-1]))
    totals = ordered.cumsum(-1)
    if bool((totals[:, -1] < p).any()):
        ordered, order = torch.sort(probabilities, descending=True)
        totals = ordered.cumsum(-1)
    kept = totals - ordered < p  # what is more probable does not reach p yet
    kept[:, 0] = True
    return torch.full_like(logits, MASKED).scatter(-1, order, logits.gather(-1, order).masked_fill(~kept, MASKED))


def choose(logits: Tensor, config: SamplingConfig, uniforms: Sequence[float]) -> Tensor:
    """One token per row ``[B]`` int64 of ``logits [B, V]``, after temperature, top-k and top-p.

    ``uniforms`` are B numbers in [0, 1), not used where the config is greedy. Inverse transform sampling over the
    vocabulary's order, summed in float64 so that a large vocabulary loses no tail.
    """
    if config.is_greedy:
        return logits.argmax(-1)
    logits = keep_top_k(apply_temperature(logits.float(), config.temperature), config.top_k)
    totals = keep_top_p(logits, config.top_p).softmax(-1).double().cumsum(-1)
    draws = torch.tensor(uniforms, dtype=torch.float64, device=logits.device)[:, None] * totals[:, -1:]
    chosen = torch.searchsorted(totals, draws, right=True)
    # rounding in the product may land on the last total: the last token that has any probability is meant then
    last = torch.searchsorted(totals, totals[:, -1:].contiguous())
    return torch.minimum(chosen, last)[:, 0]


def uniform(seed: int, index: int) -> float:
    """The number that chooses the ``index``-th generated token of a row with this seed."""
    return Stream(seed, "sampling").uniform(index)


class Ngrams:
    """The tokens that would repeat an n-gram of one growing row, without reading the row again for every token.

    >>> ngrams = Ngrams(2, [1, 2, 3, 1])
    >>> sorted(ngrams.banned())
    [2]
    """

    def __init__(self, size: int, tokens: Sequence[int] = ()):
        self.size = size
        self._prefix: tuple[int, ...] = ()
        self._followers: dict[tuple[int, ...], set[int]] = {}
        for token in tokens:
            self.append(token)

    def append(self, token: int) -> None:
        """The row grows by ``token``."""
        if len(self._prefix) == self.size - 1:
            self._followers.setdefault(self._prefix, set()).add(token)
        self._prefix = (*self._prefix, token)[-(self.size - 1) :] if self.size > 1 else ()

    def banned(self) -> set[int]:
        """Tokens that already followed the last n − 1 tokens."""
        return self._followers.get(self._prefix, set()) if len(self._prefix) == self.size - 1 else set()


def _require(condition: bool, name: str, value: float, meaning: str) -> None:
    if not condition:
        raise UsageError(f"{name} = {value}: must be {meaning}")


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
