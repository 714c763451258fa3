"""How cleaned text becomes shards: which tokenizer, which documents are held out, how the files are cut.

>>> TokenizerConfig().vocab_size, SplitConfig().validation_fraction
(6400, 0.01)
>>> TokenizerConfig.from_data({"vocab_size": 100})
Traceback (most recent call last):
    ...
lichen.config.errors.ConfigError: 1 problem in the configuration:
  vocab_size = 100: must be greater than or equal to 320
"""

from pathlib import Path

from pydantic import Field

from lichen.config.base import Config


class TokenizerConfig(Config):
    """The tokenizer: trained on the training documents, or loaded."""

    path: Path | None = None
    """Folder to load instead of training: any Hugging Face model's or tokenizer's, or a prepared folder."""
    vocab_size: int = Field(default=6400, ge=320)
    """Tokens of a trained byte-level BPE, the 64 control tokens and 256 bytes included."""
    train_bytes: int = Field(default=64 << 20, ge=1)
    """About how many bytes to train on at most; of a larger corpus an evenly spread sample of documents is taken."""


class SplitConfig(Config):
    """Which documents are held out. A document's side depends on its text and the seed alone."""

    validation_fraction: float = Field(default=0.01, ge=0, lt=1)
    """Share of the documents to hold out for validation; ignored where validation sources are named."""


class ShardConfig(Config):
    """How tokens are cut into files. Only max_length changes the tokens, the others where files end."""

    max_length: int | None = Field(default=None, ge=2)
    """Longer documents are cut to so many tokens, end token counted; null keeps them whole (packing cuts them anyway)."""
    max_bytes: int = Field(default=64 << 20, ge=1)
    """Bytes of text after which a shard ends: what an interruption costs at most, and what is held in memory."""
    max_documents: int = Field(default=1 << 18, ge=1)
    """Documents after which a shard ends."""
    batch_size: int = Field(default=256, ge=1)
    """Documents that one thread encodes at once. No effect on the result."""


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
