"""How cleaned text becomes shards: which tokenizer, which documents are held out, how the files are cut, which bank of
facts the text is linked with; and how text is made that tells facts.

>>> TokenizerConfig().vocab_size, SplitConfig().validation_fraction
(6400, 0.01)
>>> TokenizerConfig.from_data({"vocab_size": 100})
Traceback (most recent call last):
    ...
lichen.config.errors.ConfigError: 1 problem in the configuration:
  vocab_size = 100: must be greater than or equal to 320
"""

from pathlib import Path
from typing import Literal

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


class LinkingConfig(Config):
    """The readable memory that a model will have beside this text."""

    bank: Path | None = None
    """Folder of a bank (lichen knowledge build). The text is linked with its entries, and the output carries a copy of it."""
    window: int = Field(default=200, ge=1)
    """An object is linked that stands so many characters behind its subject at most."""


class FactTextsConfig(Config):
    """Text for experiments: sentences that tell facts among sentences of general text."""

    kind: Literal["pretrain", "trex", "combined"] = "combined"
    """pretrain: the general text alone; trex: the facts alone; combined: facts between the sentences of the general text."""
    told: Literal["seen", "bank"] = "seen"
    """Which facts the text tells: six tenths, while two tenths stand in the bank only; or all that the bank holds."""
    general_share: float = Field(default=0.5, ge=0.1, le=0.99)
    """Share of the text (in characters, or tokens where they are counted) that is general; kind combined."""
    repeats: int = Field(default=1, ge=1)
    """How often each fact is told, every time by a pattern drawn anew."""
    limit: int | None = Field(default=None, ge=1)
    """Facts told at most, drawn at random; those in the bank only and those added later are reduced in proportion."""
    passage_characters: int = Field(default=1500, ge=100)
    """About how long the general part of a document is; longer texts are cut between sentences."""
    facts_per_document: int = Field(default=8, ge=1)
    """Facts of a document of kind trex."""
    companions: float = Field(default=0.0, ge=0, le=1)
    """Share of the subjects told that get invented facts beside their own, so that a relation must be read to be answered."""
    companion_relations: int = Field(default=3, ge=1)
    """Invented facts for each of these subjects at most, every one of another relation that suits it."""
    invented_relations: int = Field(default=0, ge=0)
    """Relations made of words of the general text, of which half of the invented facts are: a reader that meets hundreds learns
    to go by the words that a sentence shares with a relation's label."""
    quoted: int = Field(default=0, ge=0)
    """Entries of the bank that stand in the text before four of five sentences that tell a fact, as far as any share a word with
    it: the one that says it and its nearest neighbours, for a model that is to be asked with --prompting. 0: none."""
    alone: float = Field(default=0.0, ge=0, le=1)
    """Share of the sentences that are a document of their own, as most prompts are: before the others stands other text."""
    label_sentences: int = Field(default=0, ge=0, le=50)
    """More sentences for every real relation, which say its label in the manner of other relations' sentences."""
    loose: float = Field(default=0.0, ge=0, le=1)
    """Share of the sentences in which a word before the object is another one, missing or one more, as in sentences that nobody
    foresaw; needs general text, whose words are used."""
    seed: int = Field(default=0, ge=0)
    """Seed of patterns, order, places and inventions; which facts are told, kept in the bank only or added is not drawn."""


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
