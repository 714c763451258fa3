"""How a bank of facts is built: what is read, how long an entry may be, what is tolerated.

>>> BankConfig().knowledge_length, BankConfig().max_bad_fraction
(32, 0.01)
>>> BankConfig.from_data({"knowledge_length": 300})
Traceback (most recent call last):
    ...
lichen.config.errors.ConfigError: 1 problem in the configuration:
  knowledge_length = 300: must be less than or equal to 255
"""

from pathlib import Path
from typing import Literal

from pydantic import Field

from lichen.config.base import Config


class BankConfig(Config):
    """How facts become a bank."""

    format: Literal["auto", "jsonl", "text"] = "auto"
    """auto goes by file name: .jsonl .json .ndjson hold rows (facts, triples, T-REx), .txt a sentence per line."""
    knowledge_length: int = Field(default=32, gt=1, le=255)
    """Tokens of an entry; longer texts are cut where they are read by a model, and counted here."""
    key_length: int = Field(default=16, gt=1, le=255)
    """Tokens of a key: subject and relation label."""
    tokenizer: Path | None = None
    """Folder of the tokenizer (a run's checkpoint, a prepared folder) to count tokens with; none, nothing is counted."""
    max_bad_fraction: float = Field(default=0.01, ge=0, le=1)
    """Share of a source's rows that may be bad, empty lines aside; above it nothing is built. All are always listed."""
    max_line_bytes: int = Field(default=1 << 20, ge=64)
    """A longer line or row is rejected without holding it in memory."""


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
