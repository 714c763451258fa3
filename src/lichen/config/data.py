"""What a training reads: prepared folders, their shares, how much of them, how facts are varied, how batches are loaded.

>>> DataConfig.from_data({"path": "prepared/tales"}).sequence_length
512
>>> DataConfig.from_data({"sources": [{"path": "a", "weight": 0.7}, {"path": "b", "weight": 0.3}]}).sources[1].weight
0.3
"""

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from lichen.config.base import Config


class MixtureSource(Config):
    """One prepared folder of a mixture."""

    path: Path
    """Folder written by `lichen prepare`."""
    weight: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Share of the rows relative to the other sources; left out everywhere: in proportion to the tokens."""


class LinksConfig(Config):
    """What a step of training changes in the text and in its view of the bank together, so that the answer can only be read.

    Only for text prepared with a bank, and a model that has one."""

    rebind: float = Field(default=0.5, ge=0, le=1)
    """Share of the facts in a batch that get the object of another fact of the same relation, in the text and in the bank."""
    remove: float = Field(default=0.1, ge=0, le=1)
    """Share of the facts in a batch that the bank lacks in this step; where the text tells them, nothing is to be read."""
    null_samples: int = Field(default=16, ge=0)
    """Positions of each row, drawn from those that no fact answers, at which reading nothing is taught."""

    @model_validator(mode="after")
    def _shares(self) -> Self:
        if self.rebind + self.remove > 1:
            raise ValueError(
                f"rebind {self.rebind} and remove {self.remove} are shares of the same facts: at most 1 together"
            )
        return self


class DataConfig(Config):
    """Training and validation data."""

    path: Path | None = None
    """Folder written by `lichen prepare`; its own sources keep the weights they were prepared with."""
    sources: tuple[MixtureSource, ...] = ()
    """Instead of `path`: several prepared folders, each one source of a mixture, made with the same tokenizer."""
    validation: Path | None = None
    """A separate prepared folder whose documents all serve validation; left out: the validation split of the training folders."""
    sequence_length: int = Field(default=512, ge=2)
    """Tokens of a row (elsewhere called max_seq_len); shorter documents share a row, longer ones are cut."""
    sample: int | float | None = None
    """Train on a sample only: a count of documents (whole number) or a fraction (0.1); left out: on everything."""
    sample_seed: int = Field(default=0, ge=0)
    """Which sample; independent of the training's seed."""
    skip_bad_sources: bool = False
    """Leave out a source whose folder is missing or damaged, and say what the mixture then is, instead of stopping."""
    window: int = Field(default=65536, ge=1)
    """Documents packed together; more fill rows better, fewer need less memory."""
    links: LinksConfig = LinksConfig()
    """Facts in the text under other names, or taken from the bank, for a model with a readable memory."""
    workers: int | None = Field(default=None, ge=0)
    """Processes that prepare batches; left out: chosen for the device. Batches are the same for any number."""
    prefetch: int = Field(default=2, ge=1)
    """Batches each worker prepares ahead."""
    worker_timeout: float = Field(default=120.0, gt=0)
    """Seconds after which a worker that delivers nothing is declared hanging."""

    @model_validator(mode="after")
    def _checked(self) -> Self:
        if self.path is not None and self.sources:
            raise ValueError("give either path or sources, not both")
        weights = [source.weight for source in self.sources]
        if None in weights and any(weights):
            raise ValueError("give a weight to every one of sources or to none")
        if isinstance(self.sample, float) and not 0 < self.sample <= 1:
            raise ValueError(
                f"sample = {self.sample}: a fraction lies above 0 and at most 1; a count is a whole number"
            )
        if isinstance(self.sample, int) and self.sample < 1:
            raise ValueError(f"sample = {self.sample}: a count is at least 1")
        return self


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
