"""From the configuration to rows: open the prepared folders, check that they fit together, sample, plan and mix.

One folder keeps the weights its sources were prepared with. Several folders are one source each: with weights they are mixed,
without they contribute in proportion to their tokens. Folders linked with a bank have the same bank. Validation reads every
document of the validation splits (or of a folder of its own) in an order that no training seed changes.

>>> open_data(DataConfig(), seed=0)
Traceback (most recent call last):
    ...
lichen.config.errors.UsageError: data.path: no prepared folder is given; lichen prepare makes one
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from lichen.config.data import DataConfig, MixtureSource
from lichen.config.errors import LichenError, UsageError
from lichen.core.logs import get_logger
from lichen.dataset.mixture import Joined, Mixture, given_weight, plan_rows
from lichen.dataset.plan import DocumentSet, Plan, RowSource
from lichen.dataset.shards import Prepared, Split
from lichen.dataset.subset import sample_documents

VALIDATION_SEED = 0


@dataclass(frozen=True)
class Data:
    """Everything a training needs to know of its data."""

    rows: RowSource
    """The training rows."""
    validation: Plan | None
    """The validation rows, each document once; None where no document was held out."""
    tokenizer_folder: Path
    """Where the tokenizer of all folders lies."""
    fingerprint: str
    """Changes with any byte of any folder read."""
    sampling: dict[str, Any]
    """How the documents were sampled: strategy, seed, counts per source."""
    knowledge: Path | None = None
    """Where the bank lies that the text is linked with; None for text prepared without one."""


def open_data(config: DataConfig, seed: int, verify: bool = True) -> Data:
    """Open what ``config`` names and plan its rows of ``config.sequence_length`` with the training's ``seed``.

    ``verify`` reads every byte against its checksum. Raises UsageError for missing folders or tokenizers that differ,
    LichenError naming a damaged file, and LichenError when there is nothing to learn from.
    """
    sources = config.sources or ((MixtureSource(path=config.path),) if config.path else ())
    if not sources:
        raise UsageError("data.path: no prepared folder is given; lichen prepare makes one")
    opened = _open_sources(sources, config.skip_bad_sources, verify)
    folders = [prepared for _, prepared in opened]
    held_out = folders if config.validation is None else [Prepared.open(config.validation, verify)]
    _check_tokenizers([*folders, *held_out])
    knowledge = _knowledge([*folders, *held_out])
    groups = [_training_documents(prepared) for prepared in folders]
    flat, sampling = sample_documents([part for group in groups for part in group], config.sample, config.sample_seed)
    remaining = iter(flat)
    groups = [[next(remaining) for _ in group] for group in groups]
    rows = _rows(groups, [source.weight for source, _ in opened], config, seed)
    validation = _validation_documents(held_out, whole=config.validation is not None)
    if config.validation is not None and not validation:
        raise LichenError(
            f"{config.validation}: no documents to validate on; look at its statistics.json and rejects.jsonl"
        )
    return Data(
        rows=rows,
        validation=_validation_plan(validation, config),
        tokenizer_folder=folders[0].tokenizer_folder,
        fingerprint=_fingerprint(folders if config.validation is None else [*folders, *held_out]),
        sampling=sampling,
        knowledge=knowledge,
    )


def _open_sources(
    sources: Sequence[MixtureSource], skip_bad: bool, verify: bool
) -> list[tuple[MixtureSource, Prepared]]:
    opened, problems = [], []
    for source in sources:
        try:
            opened.append((source, Prepared.open(source.path, verify)))
        except LichenError as error:
            if not skip_bad:
                raise
            problems.append(error)
    if not opened:
        raise problems[0]
    if problems:
        shares = ", ".join(f"{source.path} (weight {source.weight})" for source, _ in opened)
        for error in problems:
            get_logger(__name__).warning("source left out: %s", error)
        get_logger(__name__).warning("the mixture now consists of %s", shares)
    return opened


def _check_tokenizers(folders: Sequence[Prepared]) -> None:
    for prepared in folders[1:]:
        if prepared.tokenizer_fingerprint != folders[0].tokenizer_fingerprint:
            raise UsageError(
                f"{prepared.folder} was prepared with another tokenizer than {folders[0].folder}: prepare it again with "
                f"the tokenizer folder {folders[0].tokenizer_folder}"
            )


def _knowledge(folders: Sequence[Prepared]) -> Path | None:
    """The bank of the folders that were linked with one, which is the same for all: links are numbers of its entries."""
    linked = [prepared for prepared in folders if prepared.bank_hash is not None]
    for prepared in linked[1:]:
        if prepared.bank_hash != linked[0].bank_hash:
            raise UsageError(
                f"{prepared.folder} was linked with another bank than {linked[0].folder}: prepare it again with the bank "
                f"{linked[0].knowledge_folder}"
            )
    return linked[0].knowledge_folder if linked else None


def _sets(prepared: Prepared, split: Split) -> list[DocumentSet]:
    return [cast(DocumentSet, documents) for documents in prepared.documents(split)]  # pyright knows no cached property


def _training_documents(prepared: Prepared) -> list[DocumentSet]:
    documents = _sets(prepared, "train")
    if not documents:
        raise LichenError(
            f"{prepared.folder}: no training documents; look at its statistics.json and rejects.jsonl, relax its filters or "
            "add sources"
        )
    return documents


def _rows(
    groups: Sequence[Sequence[DocumentSet]], weights: Sequence[float | None], config: DataConfig, seed: int
) -> RowSource:
    flat = [part for group in groups for part in group]
    if len(groups) == 1 or (not any(weights) and all(given_weight(part) is None for part in flat)):
        return plan_rows(flat, config.sequence_length, seed, config.window)
    plans = [plan_rows(group, config.sequence_length, seed, config.window) for group in groups]
    tokens = [float(sum(np.sum(part.lengths, dtype=np.int64) for part in group)) for group in groups]
    return Mixture(plans, [weight or count for weight, count in zip(weights, tokens, strict=True)], seed)


def _validation_documents(folders: Sequence[Prepared], whole: bool) -> list[DocumentSet]:
    """The validation splits; of a folder given for validation, the training split as well."""
    splits: tuple[Split, ...] = ("train", "validation") if whole else ("validation",)
    return [part for prepared in folders for split in splits for part in _sets(prepared, split)]


def _validation_plan(documents: Sequence[DocumentSet], config: DataConfig) -> Plan | None:
    if not documents:
        return None
    return Plan(Joined(documents), config.sequence_length, VALIDATION_SEED, config.window)


def _fingerprint(folders: Sequence[Prepared]) -> str:
    text = "\n".join(prepared.fingerprint for prepared in folders)
    return hashlib.sha256(text.encode()).hexdigest()


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
