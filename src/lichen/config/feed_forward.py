"""What stands behind attention in a layer: a tagged union on ``kind``.

A new kind is one more section here and one more member of ``FeedForwardConfig``; ``lichen.model.feed_forward.build`` matches on
it. Sizes left unset are settled by the model's own width.

>>> KnowledgeConfig().beside, KnowledgeConfig(beside=DenseConfig(intermediate_size=64)).beside
(None, DenseConfig(kind='dense', intermediate_size=64))
>>> ExpertsConfig(num_experts=4, num_experts_per_tok=8)
Traceback (most recent call last):
    ...
pydantic_core._pydantic_core.ValidationError: 1 validation error for ExpertsConfig
  Value error, num_experts_per_tok 8 is more than num_experts 4 ...
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from lichen.config.base import Config


class DenseConfig(Config):
    """SwiGLU (Shazeer, 2020), as in Llama: ``down(silu(gate(x)) * up(x))``."""

    kind: Literal["dense"] = "dense"
    """Every token passes through the same matrices."""
    intermediate_size: int | None = Field(default=None, gt=0)
    """Width of the inner layer; unset, the model's ``intermediate_size``."""


class NothingConfig(Config):
    """A layer of attention alone, without the norm that would stand before a feed-forward part."""

    kind: Literal["none"] = "none"
    """Attention only."""


class ExpertsConfig(Config):
    """A mixture of experts (Shazeer et al., 2017), dropless: every token passes through the experts its router chooses."""

    kind: Literal["moe"] = "moe"
    """Routed SwiGLU experts."""
    num_experts: int = Field(default=8, gt=1)
    """How many routed experts; one alone would be a dense layer."""
    num_experts_per_tok: int = Field(default=2, gt=0)
    """How many of them a token passes through."""
    moe_intermediate_size: int | None = Field(default=None, gt=0)
    """Inner width of each; unset, the model's dense width divided by the number of experts a token passes through, shared ones
    included, to a multiple of 8: as many products per token as a dense layer."""
    num_shared_experts: int = Field(default=0, ge=0, le=8)
    """Experts of the same width that every token passes through beside the routed ones (DeepSeekMoE, Dai et al., 2024)."""
    norm_topk_prob: bool = True
    """Weights of the chosen experts sum to one, as in Mixtral; with a single expert per token set this to false, as in Switch
    Transformer, or the router's weight would be 1 whatever it says and it would learn nothing."""
    scoring: Literal["softmax", "sigmoid"] = "softmax"
    """What turns router logits into weights (sigmoid: DeepSeek-V3)."""
    balance: Literal["loss", "bias", "none"] = "loss"
    """Keep the experts evenly used by an auxiliary loss (Switch Transformer) or by a bias on the choice that follows the
    counts (loss-free balancing, Wang et al., 2024)."""
    bias_update_rate: float = Field(default=1e-3, gt=0)
    """How far the bias moves after every step, with balance bias."""
    z_loss: bool = True
    """Auxiliary loss on the squared log-partition of the router (ST-MoE, Zoph et al., 2022), named router_z; its factor is
    train.aux_weights."""

    @model_validator(mode="after")
    def _checked(self) -> Self:
        if self.num_experts_per_tok > self.num_experts:
            raise ValueError(
                f"num_experts_per_tok {self.num_experts_per_tok} is more than num_experts {self.num_experts} (lower it)"
            )
        if self.num_experts_per_tok == 1 and self.norm_topk_prob:
            raise ValueError(
                "num_experts_per_tok 1 with norm_topk_prob gives the router no gradient (set norm_topk_prob to false)"
            )
        return self

    def expert_width(self, dense: int) -> int:
        """The inner width of an expert in a model whose dense layers are ``dense`` wide.

        >>> ExpertsConfig().expert_width(1408), ExpertsConfig(num_shared_experts=1).expert_width(1408)
        (704, 472)
        """
        share = dense / (self.num_experts_per_tok + self.num_shared_experts)
        return self.moe_intermediate_size or max(8, 8 * round(share / 8))


class ProductKeyConfig(Config):
    """Learned values behind product keys (Lample et al., 2019; Memory Layers at Scale, Berges et al., 2024)."""

    kind: Literal["product_key"] = "product_key"
    """A sparse read from a large table of values."""
    num_keys: int = Field(default=128, gt=1)
    """Half-keys in each codebook; the table has the square of it many values."""
    heads: int = Field(default=4, gt=0)
    """Independent queries per token."""
    key_dim: int = Field(default=128, gt=1, multiple_of=2)
    """Width of a query; each half is compared with half-keys."""
    top_k: int = Field(default=16, gt=1)
    """Values that each head mixes; the weight of one alone would not depend on its key."""
    value_dim: int | None = Field(default=None, gt=0)
    """Width of a value; unset, the model's width."""
    query_norm: bool = True
    """Normalise each half of every query."""
    gate: bool = True
    """Multiply what is read by silu of a projection of the input, as Memory Layers at Scale do."""
    share_values: bool = True
    """All layers of this kind with the same table read from one."""
    lr_scale: float = Field(default=1.0, gt=0)
    """The learning rate of the values as a multiple of the model's; they never decay."""

    @model_validator(mode="after")
    def _checked(self) -> Self:
        if self.top_k > self.num_keys:
            raise ValueError(f"top_k {self.top_k} is more than num_keys {self.num_keys} (lower it)")
        return self


class KnowledgeConfig(Config):
    """A bank of readable facts: every position searches it with its own state and reads the tokens of what it finds."""

    kind: Literal["knowledge"] = "knowledge"
    """Read from the bank."""
    beside: DenseConfig | None = None
    """A dense part that works beside the reading; none: reading replaces it."""
    knowledge_num: int | None = Field(default=None, gt=0)
    """How many entries the bank may hold; unset, as many as it has."""
    knowledge_length: int = Field(default=32, gt=1, le=255)
    """Tokens of an entry; longer texts are cut, and counted."""
    knowledge_dim: int = Field(default=128, gt=1, multiple_of=2)
    """Width of keys and queries; half of it is for the subject, half for the relation."""
    heads: int = Field(default=4, gt=0)
    """Heads that read the tokens of the entries found."""
    top_k: int = Field(default=4, gt=0, le=64)
    """Entries that a position reads."""
    search: Literal["auto", "exact", "product"] = "auto"
    """Compare with every key, or with those in the best cells of two codebooks; auto: exact up to 65 536 entries."""
    router: Literal["linked", "self-supervised", "language-loss", "hard"] = "linked"
    """What teaches the queries: linked facts; the entries that hold the token to come; the language loss alone; or the
    language loss through a straight-through choice of one entry with Gumbel noise, in training only."""
    refresh_every: int = Field(default=20, gt=0)
    """Steps after which the keys of all entries are computed again; those of entries found are always fresh."""
    freeze_ratio: float = Field(default=1.0, ge=0, le=1)
    """Share of entries whose content is their text alone; the others learn an offset beside it (the text stays as it is)."""


FeedForwardConfig = Annotated[
    DenseConfig | NothingConfig | ExpertsConfig | ProductKeyConfig | KnowledgeConfig, Field(discriminator="kind")
]


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
