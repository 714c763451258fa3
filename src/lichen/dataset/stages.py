"""The stages of a preparation: clean, tokenizer, tokens, description. Each looks at what is there and does the rest.

`Stages.fill` may be called on an empty folder, on one that an interruption left, or on a finished one from which damaged
files were removed: it ends in the same bytes. Nothing written depends on the time, the place or the number of workers.

With a bank of facts, a copy of it is laid into the result and the shards get a column of links to its entries; without
one, not a byte of the result tells that there could be.

>>> differences({"a": {"b": 1}, "c": [1]}, {"a": {"b": 2}, "c": [1]})
['a.b: 1 → 2']
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lichen.config import yaml12
from lichen.config.cleaning import CleanConfig, SourceConfig
from lichen.config.errors import LichenError
from lichen.config.prepare import LinkingConfig, ShardConfig, SplitConfig, TokenizerConfig
from lichen.core.folders import fsync_folder, remove_folder, write_file, write_manifest
from lichen.dataset.bank import FACTS, HISTORY, SUMMARY, Bank
from lichen.dataset.corpus import Corpus, Portion, Report, clean_sources, load_corpus, share
from lichen.dataset.describe import describe_shards, totals
from lichen.dataset.linking import Linker
from lichen.dataset.shards import (
    DATASET,
    FORMAT,
    KNOWLEDGE,
    SPLITS,
    STATISTICS,
    Documents,
    Prepared,
    Split,
    shard_stem,
    token_type,
    write_shard,
)
from lichen.dataset.sources import Source
from lichen.dataset.tokenising import Encoded, Encoder, available_cores
from lichen.dataset.tokenizer import Tokenizer

RECIPE, PLOTS, PORTIONS = "prepare.yaml", "plots", "portions"
Draw = Callable[[Mapping[str, Any], Path], object]
"""Called with the statistics and a folder to draw plots into."""
Counts = dict[str, dict[str, list[dict[str, Any]]]]
"""Source → split → counts of each shard."""


@dataclass(frozen=True)
class Settings:
    """Everything a prepared folder depends on."""

    sources: tuple[SourceConfig, ...]
    validation: tuple[SourceConfig, ...]
    clean: CleanConfig
    tokenizer: TokenizerConfig
    split: SplitConfig
    shards: ShardConfig
    seed: int
    knowledge: LinkingConfig = field(default_factory=LinkingConfig)

    def to_data(self) -> dict[str, Any]:
        """As a recipe: without output and workers, which change no byte, and without knowledge where there is no bank."""
        sections = ("clean", "tokenizer", "split", "shards", *(("knowledge",) if self.knowledge.bank else ()))
        return {
            "sources": [source.to_data() for source in self.sources],
            "validation": [source.to_data() for source in self.validation],
            **{name: getattr(self, name).to_data() for name in sections},
            "seed": self.seed,
        }


@dataclass(frozen=True)
class Stages:
    """What fills a prepared folder."""

    settings: Settings
    sources: tuple[Source, ...]
    """The validation sources, then the others."""
    work: Path
    """Folder for what cleaning needs while it runs."""
    workers: int | None
    report: Report
    draw: Draw | None

    @cached_property
    def bank(self) -> Bank | None:
        """The bank that the text is linked with, as it is where it was built."""
        path = self.settings.knowledge.bank
        return None if path is None else Bank.open(path)

    def fill(self, result: Path, fingerprint: dict[str, Any], redraw: bool = True) -> None:
        """Run every stage whose product is not in ``result``, and write the manifest."""
        result.mkdir(parents=True, exist_ok=True)
        write_file(result / RECIPE, yaml12.write(self.settings.to_data()))
        self._copy_bank(result / KNOWLEDGE)
        corpus = self._corpus(result)
        tokenizer = self._tokenizer(result, corpus)
        counts = self._tokenise(result, corpus, tokenizer)
        statistics = self._describe(result, corpus, tokenizer, counts)
        if redraw:
            self._draw(result, statistics)
        remove_partials(result)
        write_manifest(result, fingerprint)
        for path in sorted(path for path in result.rglob("*") if path.is_dir() or path.suffix == ".png"):
            fsync_folder(path)  # a file is synced by the same call

    def _draw(self, result: Path, statistics: Mapping[str, Any]) -> None:
        remove_folder(result / PLOTS)
        if self.draw:
            self.draw(statistics, result / PLOTS)

    def _copy_bank(self, folder: Path) -> None:
        for cached in folder.glob("arrays-*"):
            cached.unlink()
        if self.bank is not None and not all((folder / name).is_file() for name in (FACTS, SUMMARY, HISTORY)):
            remove_folder(folder)
            self.bank.copy_to(folder)

    def _corpus(self, result: Path) -> Corpus:
        corpus = load_corpus(result, self.sources, self.settings.clean)
        if corpus is None:
            work, workers = self.work, self.workers or available_cores()
            clean, shards = self.settings.clean, self.settings.shards
            clean_sources(self.sources, clean, shards, work, result, workers, self.report)
            corpus = load_corpus(result, self.sources, self.settings.clean)
            assert corpus is not None
        if not corpus.portions:
            reasons = ", ".join(f"{name} {count}" for name, count in corpus.counts["dropped"].items() if count)
            raise LichenError(f"no document is left of {corpus.counts['read']} read ({reasons}); loosen the cleaning")
        return corpus

    def _side(self, source: str, text: str) -> Split:
        if self.settings.validation:
            held_out = self.sources[: len(self.settings.validation)]
            return "validation" if any(source == other.name for other in held_out) else "train"
        fraction = self.settings.split.validation_fraction
        return "validation" if share(text, "validation", self.settings.seed) < fraction else "train"

    def _tokenizer(self, result: Path, corpus: Corpus) -> Tokenizer:
        folder, path = result / "tokenizer", self.settings.tokenizer.path
        names = ("tokenizer_config.json", "chat_template.jinja", "tokenizer.json")
        present = [name for name in names if (folder / name).is_file()]
        if len(present) < len(names) and not (
            path and "tokenizer.json" in present and "tokenizer_config.json" in present
        ):
            tokenizer = Tokenizer.load(path) if path else self._train_tokenizer(corpus)
            tokenizer.save(folder)
        return Tokenizer.load(folder)

    def _train_tokenizer(self, corpus: Corpus) -> Tokenizer:
        config = self.settings.tokenizer
        sources = corpus.counts["sources"].values()
        kept_bytes = sum(source["bytes"] * source["kept"] / source["read"] for source in sources if source["read"])
        fraction = min(1.0, config.train_bytes / max(1.0, kept_bytes))
        stage = "train tokenizer"

        def texts() -> Iterator[str]:
            for source, text in corpus.all_texts(self.report, stage):
                if self._side(source, text) == "train" and share(text, "tokenizer", self.settings.seed) < fraction:
                    yield text

        return Tokenizer.train(texts(), config.vocab_size)

    def _tokenise(self, result: Path, corpus: Corpus, tokenizer: Tokenizer) -> Counts:
        """Make the shards that are missing; returns the counts of all, per source and split."""
        encoder: Encoder | None = None
        counts: Counts = {}
        done, total = 0, sum(portion.kept for portion in corpus.portions)
        for portion in corpus.portions:
            marker = result / PORTIONS / portion.source / f"{shard_stem(portion.shard)}.json"
            found = _read_marker(marker)
            if found is None:
                encoder = encoder or self._encoder(tokenizer)
                found = self._tokenise_portion(result, corpus, portion, encoder, done, total)
                marker.parent.mkdir(parents=True, exist_ok=True)
                write_file(marker, json.dumps(found, indent=1) + "\n")
            done += portion.kept
            self.report("tokenise", done, total)
            for split in SPLITS:
                counts.setdefault(portion.source, {name: [] for name in SPLITS})[split].append(found[split])
        return counts

    def _encoder(self, tokenizer: Tokenizer) -> Encoder:
        shards, linker = self.settings.shards, None
        if self.bank is not None:
            window, normalisation = self.settings.knowledge.window, self.settings.clean.normalisation
            linker = Linker(self.bank.facts, window, normalisation)
        return Encoder(tokenizer, shards.max_length, shards.batch_size, self.workers, linker)

    def _tokenise_portion(
        self, result: Path, corpus: Corpus, portion: Portion, encoder: Encoder, done: int, total: int
    ) -> dict[str, Any]:
        sides: list[Split] = []

        def texts() -> Iterator[str]:
            for text in corpus.texts(portion):
                sides.append(self._side(portion.source, text))
                yield text

        documents: dict[Split, list[Encoded]] = {split: [] for split in SPLITS}
        for number, document in enumerate(encoder.encode(texts())):
            documents[sides[number]].append(document)
            if number % 1000 == 999:
                self.report("tokenise", done + number + 1, total)
        dtype = token_type(encoder.tokenizer.vocab_size)
        for split, found in documents.items():
            if found:
                folder = result / split / portion.source
                ids, sizes = [d.ids for d in found], [d.bytes for d in found]
                links = [d.links for d in found] if encoder.linker else None
                write_shard(folder, portion.shard, ids, sizes, dtype, links=links)
        return {split: _counts(portion, found, encoder.linker is not None) for split, found in documents.items()}

    def _describe(
        self,
        result: Path,
        corpus: Corpus,
        tokenizer: Tokenizer,
        counts: Counts,
    ) -> dict[str, Any]:
        """Write ``dataset.json`` and ``statistics.json``; returns the statistics."""
        weights = {source.name: source.config.weight for source in self.sources}
        sources = []
        for name, splits in counts.items():
            kept = {split: [shard for shard in splits[split] if shard["documents"]] for split in SPLITS}
            sources.append({"name": name, "weight": weights[name], **kept})
        dtype = token_type(tokenizer.vocab_size)
        facts = {
            "fingerprint": tokenizer.fingerprint,
            "vocab_size": tokenizer.vocab_size,
            "end_of_text_id": tokenizer.end_of_text_id,
        }
        data: dict[str, Any] = {"format": FORMAT, "dtype": dtype.str, "tokenizer": facts, "sources": sources}
        if self.bank is not None:
            data[KNOWLEDGE] = {"bank": self.bank.hash, "entries": len(self.bank)}
        prepared = Prepared(result, data, "")
        documents = {split: prepared.documents(split) for split in SPLITS}
        if not documents["train"]:
            raise LichenError(
                "every document is held out and none is left to train on; lower split.validation_fraction"
            )
        by_split = {split: totals([s for source in sources for s in source[split]]) for split in SPLITS}
        by_source = {s["name"]: {split: totals(s[split]) for split in SPLITS} for s in sources}
        statistics = {
            "splits": by_split,
            "sources": by_source,
            "cleaning": corpus.counts,
            **describe_shards(documents, tokenizer),
        }
        if self.bank is not None:
            statistics[KNOWLEDGE] = _describe_links(documents, sources, len(self.bank))
        write_file(result / DATASET, json.dumps(data, indent=1, ensure_ascii=False) + "\n")
        write_file(result / STATISTICS, json.dumps(statistics, indent=1, ensure_ascii=False) + "\n")
        return statistics


def remove_partials(folder: Path) -> None:
    """Remove the temporary siblings of files that a killed process was writing."""
    for path in sorted(folder.rglob(".*.partial")):
        if path.is_dir():
            remove_folder(path)
        elif path.exists():
            path.unlink()


def differences(before: Any, after: Any, path: str = "") -> list[str]:
    """The settings that differ, as ``path: before → after``.

    >>> differences({"a": {"b": 1}, "c": [1]}, {"a": {"b": 2}, "c": [1]})
    ['a.b: 1 → 2']
    """
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        keys = dict.fromkeys([*before, *after])
        return [
            line for key in keys for line in differences(before.get(key), after.get(key), f"{path}.{key}".strip("."))
        ]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return [
            line for i, pair in enumerate(zip(before, after, strict=True)) for line in differences(*pair, f"{path}.{i}")
        ]
    return [] if before == after else [f"{path}: {json.dumps(before)} → {json.dumps(after)}"]


def _counts(portion: Portion, documents: Sequence[Encoded], linked: bool) -> dict[str, Any]:
    links = {
        "links": sum(len(document.links) for document in documents),
        "linked_tokens": sum(int(document.links["count"].sum()) for document in documents),
        "aligned_links": sum(int(np.count_nonzero(document.links["checksum"])) for document in documents),
        "lost_links": sum(document.lost_links for document in documents),
    }
    return {
        "stem": shard_stem(portion.shard),
        "documents": len(documents),
        "tokens": sum(len(document.ids) for document in documents),
        "bytes": sum(document.bytes for document in documents),
        "characters": sum(document.characters for document in documents),
        "cut_documents": sum(document.cut > 0 for document in documents),
        "cut_tokens": sum(document.cut for document in documents),
        **(links if linked else {}),
    }


def _describe_links(
    documents: Mapping[str, Sequence[Documents]], sources: Sequence[Mapping[str, Any]], entries: int
) -> dict[str, Any]:
    """Counts of links per split, their share of the tokens, and how many of the bank's entries they lead to."""
    described: dict[str, Any] = {"entries": entries}
    for split, parts in documents.items():
        shards = [shard for source in sources for shard in source[split]]
        keys = ("links", "linked_tokens", "aligned_links", "lost_links")
        sums: dict[str, Any] = {key: sum(shard[key] for shard in shards) for key in keys}
        tokens = sum(shard["tokens"] for shard in shards)
        sums["share_of_tokens"] = round(sums["linked_tokens"] / max(tokens, 1), 6)
        told = np.zeros(entries + 1, bool)  # the last one stands for -1, which is no entry
        for part in parts:
            for shard in range(len(part.stems)):
                told[part.all_links(shard)["entries"]] = True
        described[split] = {**sums, "linked_entries": int(told[:-1].sum())}
    return described


def _read_marker(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
