"""What the layers of a model look like on a text, and how the gradient of the language loss flows through them.

One forward and one backward pass over a fixed text, in evaluation mode: no noise, no links, no other loss term. A layer's states
are what it leaves in the residual stream. Gradients are those of the mean loss per target; they are asked for, never stored, so
that the model is afterwards what it was. A parameter that the loss does not reach counts as 0.

>>> from lichen.config.model import ModelConfig
>>> from lichen.dataset.plan import DocumentList
>>> from lichen.evaluation.held_out import batches_of
>>> from lichen.model.language_model import initialise
>>> small = ModelConfig(vocab_size=11, hidden_size=8, num_attention_heads=2, num_hidden_layers=2)
>>> model = initialise(LanguageModel(small), seed=0).eval()
>>> batches = batches_of(DocumentList("made", [[1, 2, 3, 4], [5, 6, 7]]), context=8, tokens_per_batch=8)
>>> found = look(model, [portion.batch for portion in batches])
>>> [(layer.layer, layer.states.n, sorted(layer.gradients.parts)) for layer in found.layers]
[(0, 3, ['attention', 'feed_forward']), (1, 3, ['attention', 'feed_forward'])]
>>> found.targets, model.model.layers[0].self_attn.q_proj.weight.grad is None
(5, True)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lichen.core.batch import IGNORE_TARGET, Batch
from lichen.evaluation.held_out import evaluating
from lichen.metrics.representations import CosineSums, Moments, mean_norm
from lichen.model.blocks import Block
from lichen.model.experts import MixtureOfExperts
from lichen.model.knowledge import Knowledge
from lichen.model.language_model import LanguageModel
from lichen.model.product_key import ProductKeyMemory

_PARTS: dict[type[nn.Module], dict[str, tuple[str, ...]]] = {
    MixtureOfExperts: {"router": ("mlp.gate.",)},
    ProductKeyMemory: {"router": ("mlp.query_proj.", "mlp.query_norm.", "mlp.keys.")},
    Knowledge: {"router": ("mlp.retrieval.",), "reader": ("mlp.reader.",)},
}
"""What of a feed-forward part stands for itself: what chooses experts, values or entries, and what reads them."""


@dataclass(frozen=True)
class States:
    """What a layer leaves in the residual stream, at n positions; see `lichen.metrics.representations`."""

    n: int
    effective_rank: float
    effective_rank_centred: float
    participation_ratio: float
    cosine_intra: float
    cosine_intra_centred: float
    cosine_inter: float
    cosine_inter_centred: float
    residual_norm: float
    """Mean length of a state."""


@dataclass(frozen=True)
class Gradients:
    """Euclidean norms of the gradient of the mean loss per target."""

    total: float
    """Of all parameters of the layer."""
    parts: Mapping[str, float]
    """Of its attention, feed_forward, router and reader, as far as it has them; the norms before them are in none."""
    residual: float
    """Of what the layer leaves in the residual stream, all positions together: what flows back, whatever the layer has of
    parameters."""


@dataclass(frozen=True)
class Layer:
    """One layer."""

    layer: int
    kind: str
    """Of its feed-forward part."""
    states: States
    """At the positions with a target but the first of each segment."""
    first: States
    """At the first positions of the segments."""
    gradients: Gradients


@dataclass(frozen=True)
class Look:
    """All layers, and the gradient outside of them."""

    targets: int
    segments: int
    loss: float
    """Nats per target."""
    layers: list[Layer]
    gradient_norm: float
    """Of all parameters."""
    elsewhere: Mapping[str, float]
    """Gradient norms of what belongs to no layer: embedding (the head too where they are one), head, last norm, shared parts."""


def look(model: LanguageModel, batches: Sequence[Batch]) -> Look:
    """Measure the layers of ``model`` on ``batches``, whose segments are whole texts or their beginnings; at least one target."""
    targets = sum(batch.num_targets for batch in batches)
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    sums = _Sums(len(model.model.layers))
    with evaluating(model), torch.inference_mode(False), torch.enable_grad():
        for batch in batches:
            _add(sums, model, named, batch.to(model.head_weight.device), targets)
    squares = {name: _square(gradient) for name, gradient in sums.gradients.items()}
    layers = [_layer(model, number, sums, squares) for number in range(len(model.model.layers))]
    return Look(
        targets=targets,
        segments=sums.segments,
        loss=sums.nats / targets,
        layers=layers,
        gradient_norm=_norm(squares, ("",)),
        elsewhere=_elsewhere(squares),
    )


# --- Passes ---


class _Sums:
    """What is gathered over batches; states stay in float32 on the host, since centring needs the mean of all first."""

    def __init__(self, layers: int):
        self.gradients: dict[str, Tensor] = {}
        self.states: list[list[Tensor]] = [[] for _ in range(layers)]
        self.flowing = [0.0] * layers
        self.first: list[Tensor] = []
        self.names: list[Tensor] = []
        self.segments = 0
        self.nats = 0.0


def _add(sums: _Sums, model: LanguageModel, named: Mapping[str, Tensor], batch: Batch, targets: int) -> None:
    """One forward and one backward pass."""
    with _listening(model) as heard:
        output = model(batch, want="nll")
    inputs = [*named.values(), *heard]
    # the loss is a mean over the targets of all batches, so that the gradients of batches add up
    found = torch.autograd.grad(output.nll.sum() / targets, inputs, allow_unused=True)
    for name, gradient in zip(named, found, strict=False):
        if gradient is not None:
            sums.gradients[name] = sums.gradients[name] + gradient if name in sums.gradients else gradient
    for layer, gradient in enumerate(found[len(named) :]):
        sums.flowing[layer] += 0.0 if gradient is None else _square(gradient)
    chosen = batch.targets != IGNORE_TARGET
    for layer, states in enumerate(heard):
        sums.states[layer].append(states.detach()[chosen].float().cpu())
    sums.first.append((batch.positions[chosen] == 0).cpu())
    sums.names.append(_numbered(batch)[chosen].cpu() + sums.segments)
    sums.segments += sum(map(len, batch.lengths))
    sums.nats += float(output.nll.detach().cpu().double().sum())


@contextmanager
def _listening(model: LanguageModel) -> Iterator[list[Tensor]]:
    """What every layer gives out meanwhile, ``[B, T, D]`` each, in order."""
    heard: list[Tensor] = []
    with ExitStack() as hooks:
        for block in model.model.layers:
            hook = block.register_forward_hook(lambda module, given, output: heard.append(output[0]))
            hooks.callback(hook.remove)
        yield heard


def _numbered(batch: Batch) -> Tensor:
    """``[B, T]`` segments counted through all rows; padding has any number."""
    before = [0]
    for row in batch.lengths[:-1]:
        before.append(before[-1] + len(row))
    return batch.segments + torch.tensor(before, device=batch.segments.device)[:, None]


# --- Measures ---


def _layer(model: LanguageModel, number: int, sums: _Sums, squares: Mapping[str, float]) -> Layer:
    states, first, names = torch.cat(sums.states[number]), torch.cat(sums.first), torch.cat(sums.names)
    prefix = f"model.layers.{number}."
    own = {name.removeprefix(prefix): value for name, value in squares.items() if name.startswith(prefix)}
    block = model.model.layers[number]
    assert isinstance(block, Block)
    return Layer(
        layer=number,
        kind=model.config.feed_forward_of(number).kind,
        states=_states(states[~first], names[~first]),
        first=_states(states[first], names[first]),
        gradients=Gradients(_norm(own, ("",)), _by_part(block, own), math.sqrt(sums.flowing[number])),
    )


def _states(states: Tensor, segments: Tensor) -> States:
    """All measures of ``states [n, D]`` in ``segments [n]``."""
    if not len(states):
        return States(0, *[math.nan] * 8)
    moments = Moments.of(states)
    raw, centred = CosineSums.of(states, segments), CosineSums.of(states, segments, moments.mean)
    return States(
        n=len(states),
        effective_rank=moments.effective_rank(),
        effective_rank_centred=moments.effective_rank(centred=True),
        participation_ratio=moments.participation_ratio(),
        cosine_intra=raw.intra,
        cosine_intra_centred=centred.intra,
        cosine_inter=raw.inter,
        cosine_inter_centred=centred.inter,
        residual_norm=mean_norm(states),
    )


def _by_part(block: Block, squares: Mapping[str, float]) -> dict[str, float]:
    """Norms of the parts that this layer has."""
    special = _PARTS.get(type(block.mlp), {})
    known = tuple(prefix for prefixes in special.values() for prefix in prefixes)
    plain = [
        name
        for name, _ in block.named_parameters()
        if name.startswith("mlp.") and not (known and name.startswith(known))
    ]
    named = {"attention": ("self_attn.",), **({"feed_forward": tuple(plain)} if plain else {}), **special}
    return {part: _norm(squares, prefixes) for part, prefixes in named.items()}


def _elsewhere(squares: Mapping[str, float]) -> dict[str, float]:
    places = {"embedding": "model.embed_tokens.", "head": "lm_head.", "norm": "model.norm.", "shared": "shared."}
    return {
        place: _norm(squares, (prefix,))
        for place, prefix in places.items()
        if any(name.startswith(prefix) for name in squares)
    }


def _norm(squares: Mapping[str, float], prefixes: tuple[str, ...]) -> float:
    return math.sqrt(sum(value for name, value in squares.items() if name.startswith(prefixes)))


def _square(gradient: Tensor) -> float:
    """The squared Euclidean norm; summed in float32 by pairs, then a Python float."""
    return float(gradient.float().norm()) ** 2


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
