"""How large a model is, told from its configuration alone: nothing is allocated, the model stands on the meta device.

>>> config = ModelConfig(vocab_size=6400, hidden_size=512, num_hidden_layers=8, num_attention_heads=8, num_key_value_heads=2)
>>> size = count(config)
>>> size.total, size.by_part["feed_forward"], flops_per_token(config, length=512) // 1_000_000
(25829888, 17301504, 55)
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from lichen.config.model import ModelConfig
from lichen.model.feed_forward import FeedForward
from lichen.model.language_model import LanguageModel
from lichen.model.loss import LOGITS_PER_CHUNK, rows_per_chunk

ACTIVATIONS_PER_LAYER = 10
"""Tensors of width D that a block keeps per token, beside the feed-forward part's."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """Parameter counts."""

    total: int
    """All parameters; a tied head counts once."""
    trainable: int
    """Those that training changes."""
    active: int
    """Those that one token meets: of a mixture the experts chosen, of a table the rows read, once for every layer that reads."""
    by_part: dict[str, int]
    """``embedding``, ``attention``, ``feed_forward``, ``norms``, ``head``, ``shared``."""
    bank_bytes: int = 0
    """Bytes of readable entries, which are no parameters."""


@dataclass(frozen=True, kw_only=True)
class TrainingMemory:
    """Bytes that one process needs in training, estimated."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int

    @property
    def total(self) -> int:
        """Their sum."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.logits


def count(config: ModelConfig) -> Size:
    """The parameters of the model ``config`` describes. Raises ConfigError where its vocabulary is not known."""
    return count_model(LanguageModel.on_meta(config))


def count_model(model: LanguageModel) -> Size:
    """The parameters of a model at hand."""
    by_part: dict[str, int] = dict.fromkeys(("embedding", "attention", "feed_forward", "norms", "head", "shared"), 0)
    for name, parameter in model.named_parameters():
        by_part[_part(name)] += parameter.numel()
    total = sum(by_part.values())
    parts = [*(_feed_forward(block) for block in model.model.layers), *model.shared.values()]
    idle = sum(_numel(part) - part.active_parameters() for part in parts if hasattr(part, "active_parameters"))
    bank = sum(part.bank_bytes() for part in parts if hasattr(part, "bank_bytes"))
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return Size(total=total, trainable=trainable, active=total - idle, by_part=by_part, bank_bytes=bank)


def _feed_forward(block: nn.Module) -> FeedForward:
    part = block.mlp
    assert isinstance(part, FeedForward)
    return part


def _numel(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _part(name: str) -> str:
    if name.startswith("shared."):
        return "shared"
    if ".mlp." in name:
        return "feed_forward"
    if "norm" in name:
        return "norms"
    if "self_attn" in name:
        return "attention"
    return "head" if name.startswith("lm_head") else "embedding"


def flops_per_token(config: ModelConfig, length: int) -> int:
    """Floating-point operations of the forward pass per token in texts of ``length`` tokens; a training step takes three times as
    many. Two per weight of every matrix product, causal attention over half of the text on average, and what the feed-forward
    parts say of themselves, search and reading included.
    """
    model = LanguageModel.on_meta(config)
    parts = count_model(model).by_part
    head = parts["embedding"] if config.tie_word_embeddings else parts["head"]
    heads = config.num_attention_heads * config.head_size
    attention = 2 * parts["attention"] + 2 * config.num_hidden_layers * heads * length
    return attention + 2 * head + sum(_feed_forward(block).flops_per_token() for block in model.model.layers)


def training_memory(
    config: ModelConfig,
    *,
    rows: int,
    length: int,
    activation_bytes: int = 2,
    moments: int = 2,
    checkpointing: bool = False,
) -> TrainingMemory:
    """Memory of training on ``rows`` x ``length`` tokens per micro-batch, with ``moments`` float32 moments per weight."""
    model, tokens = LanguageModel.on_meta(config), rows * length
    parameters = count_model(model).total
    # A dense part keeps three tensors of its inner width: as many numbers as it has operations for each of its inputs, and
    # parts that search or choose keep as much per operation.
    inner = [_feed_forward(block).flops_per_token() // (2 * config.hidden_size) for block in model.model.layers]
    layer_bytes = [tokens * activation_bytes * (ACTIVATIONS_PER_LAYER * config.hidden_size + width) for width in inner]
    stream_bytes = tokens * config.hidden_size * activation_bytes * config.num_hidden_layers
    chunked = rows_per_chunk(tokens, config.vocabulary) > 0
    logits = 2 * 4 * LOGITS_PER_CHUNK if chunked else tokens * config.vocabulary * (activation_bytes + 4)
    return TrainingMemory(
        weights=4 * parameters,
        gradients=4 * parameters,
        optimizer=4 * moments * parameters,
        activations=max(layer_bytes) + stream_bytes if checkpointing else sum(layer_bytes),
        logits=logits,
    )


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
