"""What the language model is made of, in Llama's own field names.

The feed-forward part of a layer is a tagged union on ``kind``: ``feed_forward`` speaks for all layers and
``feed_forward_by_layer`` overrides it for single layers (``"0"``) or ranges with both ends included (``"4-7"``). The kinds are
in ``lichen.config.feed_forward``.

>>> config = ModelConfig(hidden_size=64, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=3)
>>> config.head_size, config.dense_intermediate_size(DenseConfig())
(16, 192)
>>> ModelConfig.from_data({"num_hidden_layers": 3, "feed_forward_by_layer": {"1-2": {"kind": "none"}}}).feed_forward_of(2)
NothingConfig(kind='none')
"""

import math
import re
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from lichen.config.base import Config
from lichen.config.errors import ConfigError
from lichen.config.feed_forward import DenseConfig, FeedForwardConfig


class YarnConfig(Config):
    """YaRN (Peng et al., 2023): slow frequencies are interpolated, fast ones kept, so that a model reads longer texts."""

    rope_type: Literal["yarn"] = "yarn"
    """The name of the scaling in Hugging Face's configuration."""
    factor: float = Field(default=4.0, ge=1.0)
    """How many times the original length is to be reached."""
    original_max_position_embeddings: int = Field(default=2048, gt=0)
    """The length the model was trained with."""
    beta_fast: float = Field(default=32.0, gt=0)
    """Dimensions that turn more often than this over the original length are left as they are."""
    beta_slow: float = Field(default=1.0, gt=0)
    """Dimensions that turn less often than this are interpolated fully."""
    attention_factor: float | None = Field(default=None, gt=0)
    """Scale of the rotated queries and keys; unset, 0.1 ln(factor) + 1."""
    truncate: bool = True
    """Round the borders between kept and interpolated dimensions to whole dimensions."""


class ModelConfig(Config):
    """A decoder-only transformer: RMSNorm, rotary positions, grouped-query attention, one feed-forward kind per layer."""

    vocab_size: int | None = Field(default=None, gt=0)
    """How many token ids there are; unset, as many as the tokenizer has."""
    hidden_size: int = Field(default=512, gt=0)
    """Width of the residual stream."""
    num_hidden_layers: int = Field(default=8, gt=0)
    """How many blocks."""
    num_attention_heads: int = Field(default=8, gt=0)
    """How many query heads."""
    num_key_value_heads: int | None = Field(default=None, gt=0)
    """How many key and value heads, each shared by a group of query heads; unset, as many as query heads."""
    head_dim: int | None = Field(default=None, gt=0)
    """Width of a head; unset, hidden_size / num_attention_heads."""
    intermediate_size: int | None = Field(default=None, gt=0)
    """Inner width of dense layers; unset, 8/3 of hidden_size rounded up to a multiple of 64."""
    max_position_embeddings: int = Field(default=4096, gt=0)
    """The longest text the model is meant for, in tokens."""
    rms_norm_eps: float = Field(default=1e-5, gt=0)
    """Added to the mean square in every norm."""
    rope_theta: float = Field(default=10000.0, gt=0)
    """Base of the rotary frequencies."""
    rope_scaling: YarnConfig | None = None
    """Scaling of the rotary frequencies for longer texts."""
    qk_norm: bool = False
    """Normalise every head's queries and keys before rotation, as Qwen3 does."""
    tie_word_embeddings: bool = True
    """Use the embedding as the output head."""
    initializer_range: float = Field(default=0.02, gt=0)
    """Standard deviation of initial matrices."""
    feed_forward: FeedForwardConfig = DenseConfig()
    """The feed-forward part of all layers."""
    feed_forward_by_layer: dict[str, FeedForwardConfig] = {}
    """Other feed-forward parts for single layers or ranges: {"0": …, "4-7": …}."""

    @field_validator("feed_forward", mode="before")
    @classmethod
    def _familiar(cls, value: Any) -> Any:
        return with_familiar_kind(value)

    @field_validator("feed_forward_by_layer", mode="before")
    @classmethod
    def _familiar_by_layer(cls, value: Any) -> Any:
        return {key: with_familiar_kind(part) for key, part in value.items()} if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = [*self._head_problems(), *self._layer_problems()]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _head_problems(self) -> list[str]:
        problems = []
        if self.head_dim is None and self.hidden_size % self.num_attention_heads:
            problems.append(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.num_attention_heads}"
                " (set head_dim, or change one)"
            )
        elif self.head_size % 2:
            problems.append(f"head_dim {self.head_size} is odd, but rotary positions turn pairs (choose an even one)")
        if self.num_attention_heads % self.key_value_heads:
            problems.append(
                f"num_attention_heads {self.num_attention_heads} is not a multiple of"
                f" num_key_value_heads {self.key_value_heads}"
            )
        return problems

    def _layer_problems(self) -> list[str]:
        problems: list[str] = []
        owner: dict[int, str] = {}
        for text in self.feed_forward_by_layer:
            layers = _parse_range(text)
            if layers is None:
                problems.append(f"feed_forward_by_layer: '{text}' is neither a layer like '3' nor a range like '4-7'")
                continue
            if layers.stop > self.num_hidden_layers:
                problems.append(
                    f"feed_forward_by_layer: '{text}' goes beyond the last layer, {self.num_hidden_layers - 1}"
                )
            overlapped = sorted({owner[layer] for layer in layers if layer in owner})
            problems.extend(f"feed_forward_by_layer: '{text}' overlaps '{other}'" for other in overlapped)
            owner.update(dict.fromkeys(layers, text))
        return problems

    @property
    def head_size(self) -> int:
        """Width of a head."""
        return self.head_dim or self.hidden_size // self.num_attention_heads

    @property
    def key_value_heads(self) -> int:
        """How many key and value heads."""
        return self.num_key_value_heads or self.num_attention_heads

    @property
    def vocabulary(self) -> int:
        """``vocab_size``, which must be known by now. Raises ConfigError where it is not."""
        if self.vocab_size is None:
            raise ConfigError(
                "model.vocab_size is not set: set it, or name prepared data or a tokenizer to take it from"
            )
        return self.vocab_size

    def feed_forward_of(self, layer: int) -> FeedForwardConfig:
        """The feed-forward configuration of ``layer``, counted from 0."""
        for text, config in self.feed_forward_by_layer.items():
            layers = _parse_range(text)
            if layers is not None and layer in layers:
                return config
        return self.feed_forward

    def dense_intermediate_size(self, dense: DenseConfig) -> int:
        """The inner width of a dense layer: its own, the model's, or 8/3 of the hidden width rounded up to 64."""
        return dense.intermediate_size or self.intermediate_size or 64 * math.ceil(self.hidden_size * 8 / 3 / 64)

    def with_vocabulary(self, vocab_size: int) -> Self:
        """The same model for ``vocab_size`` token ids. Raises ConfigError where another number is set."""
        if self.vocab_size not in (None, vocab_size):
            raise ConfigError(
                f"model.vocab_size = {self.vocab_size}: the tokenizer has {vocab_size} ids (leave it unset to take them over)"
            )
        return type(self).model_validate({**dict(self), "vocab_size": vocab_size})


FAMILIAR_KINDS = {"model": "knowledge", "model_no_feed": "none", "model_original": "dense"}
"""What ExplicitLM calls these variants."""


def with_familiar_kind(part: Any) -> Any:
    """A feed-forward section whose kind has the name that users of ExplicitLM know.

    >>> with_familiar_kind({"kind": "model_no_feed"})
    {'kind': 'none'}
    """
    if isinstance(part, dict) and isinstance(part.get("kind"), str):
        return {**part, "kind": FAMILIAR_KINDS.get(part["kind"], part["kind"])}
    return part


def _parse_range(text: str) -> range | None:
    """``"4-7"`` as ``range(4, 8)``, ``"3"`` as ``range(3, 4)``, anything else as None.

    >>> _parse_range("4-7"), _parse_range("7-4")
    (range(4, 8), None)
    """
    found = re.fullmatch(r"(\d+)(?:-(\d+))?", text, flags=re.ASCII)
    if found is None:
        return None
    first = int(found[1])
    last = int(found[2] or first)
    return range(first, last + 1) if first <= last else None


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
