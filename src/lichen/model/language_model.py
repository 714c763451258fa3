"""The language model: token ids in, what the caller wants out, through one door.

``LanguageModel.model`` is the decoder stack, ``lm_head`` the output head (none where the embedding serves as one), ``shared``
the banks that feed-forward parts of several layers use: the state dict has exactly Llama's and Qwen3's names. Everything that
computes with weights goes through ``forward``, so that wrappers (DDP, FSDP) see it; nothing is left on the model afterwards.

``compile`` compiles what does not depend on the lengths of segments: decoder and loss of rows that are one segment each in one
region; with several segments the parts between attentions. The layout and the choice of targets are made outside.

>>> model = LanguageModel(ModelConfig(vocab_size=11, hidden_size=8, num_attention_heads=2, num_hidden_layers=1))
>>> output = initialise(model, seed=0)(Batch.of_tokens(torch.tensor([[1, 2, 3], [4, 5, 6]])))
>>> output.nll.shape, output.rows.tolist(), round(output.nll.mean().item(), 1)
(torch.Size([4]), [0, 0, 1, 1], 2.4)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lichen.config.model import ModelConfig
from lichen.core.batch import IGNORE_TARGET, Batch
from lichen.core.streams import Stream
from lichen.model.blocks import Block
from lichen.model.feed_forward import Aux, FeedForward
from lichen.model.layout import KeyValueCache, Layout
from lichen.model.loss import linear_cross_entropy, rows_per_chunk
from lichen.model.norms import RMSNorm
from lichen.model.regions import eager
from lichen.model.rope import Rope

Want = Literal["nll", "logits", "last", "hidden"]
Losses = dict[str, tuple[Tensor, Tensor]]
Counts = dict[str, Tensor]
ModuleType = TypeVar("ModuleType", bound=nn.Module)

DENSE_SHARE = 0.9
"""From this share of positions with a target on, picking the targets costs more than computing the others too."""


@dataclass(kw_only=True)
class Output:
    """What one forward pass gives. A field that was not wanted is None; its type says what it is where it was."""

    nll: Tensor = None  # pyright: ignore[reportAssignmentType]
    """``[M]`` float32 negative log-likelihood of every target, in reading order."""
    index: Tensor = None  # pyright: ignore[reportAssignmentType]
    """``[M]`` int64 where the targets stand in the batch's tensors laid flat: ``batch.weights.view(-1)[index]``."""
    rows: Tensor = None  # pyright: ignore[reportAssignmentType]
    """``[M]`` int64 row of every target."""
    segments: Tensor = None  # pyright: ignore[reportAssignmentType]
    """``[M]`` int64 segment of every target in its row."""
    logits: Tensor = None  # pyright: ignore[reportAssignmentType]
    """``[B, T, V]``, or ``[B, V]`` for "last"."""
    hidden: Tensor = None  # pyright: ignore[reportAssignmentType]
    """``[B, T, D]`` after the last norm."""
    aux: Losses = field(default_factory=dict)
    """Loss terms of feed-forward parts as (sum, weight), added over layers, padding excluded."""
    meters: Counts = field(default_factory=dict)
    """Counts of feed-forward parts, ``layers.<i>.<name>``; summed over ranks they go to ``after_step``."""


class Decoder(nn.Module):
    """Embedding, blocks, last norm."""

    def __init__(self, config: ModelConfig, shared: nn.ModuleDict):
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocabulary, config.hidden_size)
        self.layers = nn.ModuleList(Block(config, layer, shared) for layer in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.rope = Rope(config)
        self.checkpointing = False
        """Keep only the blocks' inputs for the backward pass and compute the rest again."""

    def forward(self, tokens: Tensor, layout: Layout) -> tuple[Tensor, Losses, Counts]:
        """``tokens [B, T]`` → hidden states ``[B, T, D]``, losses added over layers, counts per layer."""
        x = self.embed_tokens(tokens)
        losses: Losses = {}
        counts: Counts = {}
        for number, block in enumerate(self.layers):
            if self.checkpointing and torch.is_grad_enabled():
                x, aux = checkpoint(block, x, layout, use_reentrant=False)  # pyright: ignore[reportGeneralTypeIssues]
            else:
                x, aux = block(x, layout)
            _collect(aux, number, losses, counts)
        return self.norm(x), losses, counts


def _collect(aux: Aux, layer: int, losses: Losses, counts: Counts) -> None:
    for name, value in aux.items():
        if isinstance(value, Tensor):
            counts[f"layers.{layer}.{name}"] = value.detach()
        elif name in losses:
            losses[name] = (losses[name][0] + value[0], losses[name][1] + value[1])
        else:
            losses[name] = value


class LanguageModel(nn.Module):
    """A decoder and its output head. Raises ConfigError where ``config.vocab_size`` is not set."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.shared = nn.ModuleDict()
        self.model = Decoder(config, self.shared)
        head = None if config.tie_word_embeddings else nn.Linear(config.hidden_size, config.vocabulary, bias=False)
        self.lm_head = head
        self._regions: dict[str, Callable[..., Any]] = {}

    @property
    def head_weight(self) -> Tensor:
        """``[V, D]``."""
        return self.model.embed_tokens.weight if self.lm_head is None else self.lm_head.weight

    def forward(self, batch: Batch, *, want: Want = "nll", cache: KeyValueCache | None = None) -> Output:
        """Read ``batch`` and give what is wanted: "nll" per target, "logits" everywhere, "last" logits of every row's last real
        token, or "hidden" states. With a ``cache`` the batch continues the texts in it, one segment per row.
        """
        layout = self._layout(batch, cache)
        if want == "nll":
            output = self._forward_nll(batch, layout)
        else:
            # with a cache every step has another length, and a compiled region would be compiled for each
            decoder = self._region("decoder", self.model) if cache is None else self.model
            hidden, losses, counts = decoder(batch.tokens, layout)
            output = Output(aux=losses, meters=counts)
            if want == "hidden":
                output.hidden = hidden
            else:
                output.logits = self._logits(_last(hidden, batch) if want == "last" else hidden)
        if cache is not None:
            cache.advance(batch)
        return output

    @eager
    def _layout(self, batch: Batch, cache: KeyValueCache | None) -> Layout:
        dtype = compute_dtype(self.head_weight)
        shared, embedding = dict(self.shared.items()), self.model.embed_tokens.weight
        return Layout.of(batch, self.model.rope, dtype=dtype, cache=cache, shared=shared, embedding=embedding)

    def _forward_nll(self, batch: Batch, layout: Layout) -> Output:
        index, width = _target_index(batch), batch.tokens.shape[1]
        flat_targets, found = batch.targets.reshape(-1), index.shape[0]
        everywhere = found >= DENSE_SHARE * flat_targets.shape[0] and not rows_per_chunk(
            flat_targets.shape[0], self.head_weight.shape[0]
        )
        region = self._region("nll", self._decode_nll)
        if everywhere:
            nll, losses, counts = region(batch.tokens, layout, flat_targets.clamp(min=0), None)
            nll = nll[index]
        else:
            nll, losses, counts = region(batch.tokens, layout, flat_targets[index], index)
        segments = batch.segments.reshape(-1)[index]
        return Output(nll=nll, index=index, rows=index // width, segments=segments, aux=losses, meters=counts)

    def _decode_nll(
        self, tokens: Tensor, layout: Layout, targets: Tensor, index: Tensor | None
    ) -> tuple[Tensor, Losses, Counts]:
        """``nll`` of ``targets [M]`` that stand at the flat positions ``index [M]``, or everywhere."""
        hidden, losses, counts = self.model(tokens, layout)
        hidden = hidden.flatten(0, 1)
        if index is not None:
            hidden = hidden.index_select(0, index)
        return linear_cross_entropy(hidden, self.head_weight, targets, layout.dtype), losses, counts

    def _logits(self, hidden: Tensor) -> Tensor:
        return nn.functional.linear(hidden, self.head_weight) if self.lm_head is None else self.lm_head(hidden)

    def after_step(self, counts: Mapping[str, Tensor]) -> None:
        """Hand ``counts`` (``Output.meters`` of the step, summed over ranks and micro-batches) to the layers they are from."""
        for number, block in enumerate(self.model.layers):
            prefix = f"layers.{number}."
            own = {name.removeprefix(prefix): value for name, value in counts.items() if name.startswith(prefix)}
            assert isinstance(block.mlp, FeedForward)
            block.mlp.after_step(own)

    def training_state(self) -> dict[str, Tensor]:
        """What a training must remember of the shared parts beside their weights: ``<part>/<name>`` → tensor."""
        parts = {name: getattr(part, "training_state", dict)() for name, part in self.shared.items()}
        return {f"{name}/{key}": tensor for name, state in parts.items() for key, tensor in state.items()}

    def load_training_state(self, state: Mapping[str, Tensor]) -> None:
        """Take over what ``training_state`` gave."""
        for name, part in self.shared.items():
            own = {key.removeprefix(f"{name}/"): value for key, value in state.items() if key.startswith(f"{name}/")}
            if hasattr(part, "load_training_state"):
                part.load_training_state(own)  # pyright: ignore[reportCallIssue]

    def compile(self, *args: Any, **options: Any) -> None:
        """Compile the regions that do not depend on lengths; ``options`` go to ``torch.compile``. Hooks in them do not fire."""
        self._regions = {
            "nll": torch.compile(self._decode_nll, *args, **options),
            "decoder": torch.compile(self.model, *args, **options),
        }

    def _region(self, name: str, plain: Callable[..., Any]) -> Callable[..., Any]:
        return self._regions.get(name, plain)

    def __getstate__(self) -> dict[str, Any]:  # a copy starts uncompiled
        return {**super().__getstate__(), "_regions": {}}  # pyright: ignore[reportAttributeAccessIssue]

    @classmethod
    def on_meta(cls, config: ModelConfig) -> Self:
        """The model without memory for its weights; ``to_empty`` and ``initialise``, or loading, give it some."""
        with torch.device("meta"):
            return cls(config)


@eager
def _target_index(batch: Batch) -> Tensor:
    """``[M]`` flat positions of targets; their number is known on the host, so that the device is not waited for."""
    wanted = batch.targets.reshape(-1) != IGNORE_TARGET
    if wanted.device.type not in ("cpu", "cuda"):  # others lack the operator
        return wanted.nonzero()[:, 0]
    return torch.nonzero_static(wanted, size=batch.num_targets)[:, 0]


def _last(hidden: Tensor, batch: Batch) -> Tensor:
    """``[B, D]`` at the last real token of every row."""
    ends = [max(sum(row), 1) - 1 for row in batch.lengths]
    if set(ends) == {hidden.shape[1] - 1}:
        return hidden[:, -1]
    rows = torch.arange(hidden.shape[0], device=hidden.device)
    return hidden[rows, torch.tensor(ends, device=hidden.device)]


def compute_dtype(weight: Tensor) -> torch.dtype:
    """What products with ``weight`` are computed in: autocast's dtype where it is on, else the weight's."""
    kind = weight.device.type
    if weight.dtype != torch.float64 and kind != "meta" and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return weight.dtype


def initialise(model: ModuleType, seed: int) -> ModuleType:
    """Fill all weights from the stream "init", each by its own name: independent of order, device and rank.

    Matrices are normal with ``initializer_range``, those that write to the residual stream scaled by 1 / sqrt(2 L) (GPT-2,
    Radford et al., 2019); norms are ones, biases zeros. A feed-forward part may fill its own.
    """
    config: ModelConfig = model.config  # pyright: ignore[reportAssignmentType]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            generator = Stream(seed, f"init/{name}").torch()
            if not _initialise_own(model, name, parameter, generator):
                _initialise_default(name, parameter, generator, config)
    return model


def _initialise_own(model: nn.Module, name: str, parameter: Tensor, generator: torch.Generator) -> bool:
    """Let the nearest module above the parameter that wants to fill it do so."""
    parts = name.split(".")
    for end in range(len(parts) - 1, 0, -1):
        fill = getattr(model.get_submodule(".".join(parts[:end])), "initialise", None)
        if fill is not None and fill(".".join(parts[end:]), parameter, generator):
            return True
    return False


def _initialise_default(name: str, parameter: Tensor, generator: torch.Generator, config: ModelConfig) -> None:
    if parameter.dim() < 2:
        parameter.fill_(1.0 if name.endswith("norm.weight") else 0.0)
        return
    residual = name.endswith(("o_proj.weight", "down_proj.weight"))
    std = config.initializer_range / (math.sqrt(2 * config.num_hidden_layers) if residual else 1.0)
    parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float32) * std)


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
