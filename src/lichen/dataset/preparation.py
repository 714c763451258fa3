"""From raw sources to a prepared folder, continued after any interruption and byte for byte the same in the end.

Everything is derived from what is on disk. The work lies in ``OUTPUT.partial``: ``plan.json`` (settings and fingerprints
of the sources; another recipe or a changed source is refused), ``cleaning`` (see ``cleaning.py``) and ``result``, which
becomes the output by one rename at the end:

    prepare.yaml      the settings, a recipe of their own
    cleaned.json, kept.npy                     counts; which documents were kept, in which portions (``corpus.py``)
    tokenizer/        trained on the kept training documents, or a copy of the one named
    knowledge/        a copy of the bank, if one is named
    train|validation/SOURCE/shard_00000.*      see ``shards.py``
    portions/SOURCE/shard_00000.json           written when the shards of a portion are whole: their counts
    dataset.json  statistics.json  rejects.jsonl  plots/  MANIFEST.json

A portion is done when its own file is there, and any stage can be repeated alone. So a finished folder that lost or
garbled a file is mended where it lies: what is damaged is removed, and the same stages fill it in again.

>>> import tempfile
>>> folder = Path(tempfile.mkdtemp())
>>> _ = (folder / "tales.txt").write_text("\\n".join(f"Once there were {n} cats." for n in range(40)))
>>> source = SourceConfig(path=folder / "tales.txt", split="line")
>>> made = prepare([source], folder / "out", tokenizer=TokenizerConfig(vocab_size=330), workers=1)
>>> made.state, [part.name for part in made.prepared.documents("train")]
('made', ['tales'])
>>> prepare([source], folder / "out", tokenizer=TokenizerConfig(vocab_size=330), workers=1).state
'whole'
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lichen.config.cleaning import CleanConfig, SourceConfig
from lichen.config.errors import LichenError, UsageError
from lichen.config.prepare import LinkingConfig, ShardConfig, SplitConfig, TokenizerConfig
from lichen.core.disk import check_writable, disk_errors, rename, unlink
from lichen.core.folders import MANIFEST, Manifest, fsync_folder, read_manifest, remove_folder, write_file
from lichen.core.locks import LOCK, FolderLock
from lichen.dataset.corpus import Report
from lichen.dataset.shards import SPLITS, Prepared, find_damage
from lichen.dataset.sources import check_fingerprint, open_sources
from lichen.dataset.stages import PLOTS, PORTIONS, Draw, Settings, Stages, differences, remove_partials
from lichen.dataset.tokenizer import Tokenizer

TOLERANCE = ("max_bad_fraction", "bad_source")
"""Settings of the cleaning that decide whether it stops, not what it finds."""


@dataclass(frozen=True)
class Outcome:
    """A prepared folder, and whether it was made now, found whole, or mended."""

    prepared: Prepared
    state: Literal["made", "whole", "mended"]
    damaged: tuple[str, ...] = field(default=())
    """What was found damaged, one line per file."""


def prepare(
    sources: Sequence[SourceConfig],
    output: str | Path,
    *,
    validation: Sequence[SourceConfig] = (),
    clean: CleanConfig | None = None,
    tokenizer: TokenizerConfig | None = None,
    split: SplitConfig | None = None,
    shards: ShardConfig | None = None,
    knowledge: LinkingConfig | None = None,
    seed: int = 0,
    workers: int | None = None,
    report: Report = lambda stage, done, total: None,
    draw: Draw | None = None,
) -> Outcome:
    """Clean, tokenise and shard ``sources`` into the folder ``output``; continue where an earlier call was interrupted.

    Args:
        sources: what to train on.
        output: the folder to make. A finished one is verified, and mended where it is damaged.
        validation: what to hold out instead of a share of the sources; duplicates of it are dropped from them.
        clean, tokenizer, split, shards, knowledge: see their classes.
        seed: of the split and of the tokenizer's sample.
        workers: threads and processes; None for all cores, 1 for none beside this one.
        report: called with (stage, documents done, documents in all or None).
        draw: called with the statistics and a folder to draw plots into.

    Raises:
        UsageError: wrong paths, or settings that differ from those the folder was begun with.
        LichenError: unreadable or changed sources, nothing left after cleaning, a full disk; calling again continues.
    """
    settings = Settings(
        sources=tuple(sources),
        validation=tuple(validation),
        clean=clean or CleanConfig(),
        tokenizer=tokenizer or TokenizerConfig(),
        split=split or SplitConfig(),
        shards=shards or ShardConfig(),
        seed=seed,
        knowledge=knowledge or LinkingConfig(),
    )
    output = Path(output)
    opened = open_sources([*settings.validation, *settings.sources])
    partial = output.with_name(output.name + ".partial")
    check_writable(output.parent)
    try:
        with FolderLock(partial, "preparing"), disk_errors(output):
            stages = Stages(settings, opened, partial / "cleaning", workers, report, draw)
            preparation = _Preparation(stages, output, partial)
            outcome = preparation.check_finished() if output.exists() else preparation.make()
            _remove_work(partial)
    finally:
        if partial.is_dir() and [path.name for path in partial.iterdir()] == [LOCK]:
            remove_folder(partial)
    return outcome


def tokenise(
    source: str | Path | SourceConfig | Sequence[str | Path | SourceConfig],
    tokenizer: str | Path | int,
    output: str | Path,
    max_length: int | None = None,
    chunk_size: int = 8192,
    save_interval: int = 8,
    resume: bool = True,
    workers: int | None = None,
) -> Prepared:
    """Tokenise documents that are clean already into a prepared folder, without dropping any.

    Args:
        source: files, folders or globs as for `prepare`.
        tokenizer: a folder to load it from, or the vocabulary size of one to train.
        max_length: longer documents are cut to so many tokens, which the statistics count; None cuts none.
        chunk_size: documents handled at once.
        save_interval: chunks per shard; an interruption costs at most so many.
        resume: continue an interrupted call; False starts anew.
    """
    given = [source] if isinstance(source, (str, Path, SourceConfig)) else list(source)
    configs = [item if isinstance(item, SourceConfig) else SourceConfig(path=Path(item)) for item in given]
    output = Path(output)
    if not resume:
        remove_folder(output.with_name(output.name + ".partial"))
    trained = isinstance(tokenizer, int)
    outcome = prepare(
        configs,
        output,
        clean=keep_all(chunk_size),
        tokenizer=TokenizerConfig(vocab_size=tokenizer) if trained else TokenizerConfig(path=Path(tokenizer)),
        split=SplitConfig(validation_fraction=0.0),
        shards=ShardConfig(max_length=max_length, max_documents=chunk_size * save_interval),
        workers=workers,
    )
    return outcome.prepared


def keep_all(chunk_size: int = 8192) -> CleanConfig:
    """Cleaning that drops nothing but empty and unreadable documents and changes no character."""
    return CleanConfig.from_data(
        {
            "normalisation": "none",
            "unify_newlines": False,
            "strip_controls": False,
            "strip": False,
            "repetition": {
                name: 1.0 for name in type(CleanConfig().repetition).model_fields if name.startswith("max_")
            },
            "deduplicate": {"exact": False, "near": False},
            "chunk_documents": chunk_size,
        }
    )


class _Preparation:
    """One preparation and its two folders."""

    def __init__(self, stages: Stages, output: Path, partial: Path):
        self.stages = stages
        self.output = output
        self.partial = partial
        self.fingerprint: dict[str, Any] = {}

    def make(self) -> Outcome:
        """Fill ``result`` and give it its name."""
        result = self.partial / "result"
        self._check_plan()
        try:
            self.stages.fill(result, self._fingerprint())
        except LichenError:
            with contextlib.suppress(LichenError):  # a full disk has no room for this note either
                self._write_plan(gave_up=True)
            raise
        rename(result, self.output)
        fsync_folder(self.output.parent)
        return Outcome(Prepared.open(self.output), "made")

    def check_finished(self) -> Outcome:
        """Verify a finished folder and mend what is damaged, if it was made from the same."""
        if not (self.output / MANIFEST).is_file():
            raise UsageError(f"{self.output}: exists and is no prepared folder; choose another output, or remove it")
        manifest = read_manifest(self.output)
        self._check_same(manifest.fingerprint, f"{self.output} was prepared")
        remove_partials(self.output)
        damaged = find_damage(self.output)
        if not damaged:
            return Outcome(Prepared.open(self.output, verify=False), "whole")
        if extra := [line for line in damaged if line.endswith(f": extra, not in {MANIFEST}")]:
            raise LichenError(f"{self.output}: {extra[0]}; remove it")
        _remove_work(self.partial)
        self._mend(manifest, [line.split(": ")[0] for line in damaged])
        return Outcome(Prepared.open(self.output), "mended", tuple(damaged))

    def _mend(self, manifest: Manifest, names: Sequence[str]) -> None:
        for name in names:
            path = self.output / name
            if path.exists():
                unlink(path)
            parts = Path(name).parts
            if parts[0] in SPLITS:  # the portion is made again, both its shards
                stem = parts[-1].split(".")[0]
                (self.output / PORTIONS / parts[1] / f"{stem}.json").unlink(missing_ok=True)
        redraw = any(name.startswith(f"{PLOTS}/") for name in names)
        self.stages.fill(self.output, self._fingerprint(), redraw)
        if read_manifest(self.output).files != manifest.files:
            write_file(self.output / MANIFEST, manifest.to_json())  # still damaged, as far as anyone can tell
            raise LichenError(
                f"{self.output}: what was made again differs from what was there; other versions of the libraries are "
                "installed now: prepare into a new folder"
            )

    # Plan

    def _check_plan(self) -> None:
        """Compare with the plan of an interrupted call, or write it.

        A call that gave up (bad lines, nothing left) asked for other sources or settings: with these it begins anew.
        How many bad lines are tolerated may change without that.
        """
        path = self.partial / "plan.json"
        plan = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
        if plan is not None and plan.pop("gave_up", False):
            clean = self.stages.settings.to_data()["clean"]
            plan["settings"]["clean"].update({name: clean[name] for name in TOLERANCE})
            plan = plan if plan == json.loads(json.dumps(self._fingerprint())) else None
        if plan is not None:
            self._check_same(plan, f"{self.partial} was begun")
        else:
            _remove_work(self.partial)  # also what an interrupted removal left
        self._write_plan()

    def _write_plan(self, gave_up: bool = False) -> None:
        plan = {**self._fingerprint(), **({"gave_up": True} if gave_up else {})}
        text = json.dumps(plan, indent=1, ensure_ascii=False) + "\n"
        path = self.partial / "plan.json"
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_file(path, text)

    def _fingerprint(self) -> dict[str, Any]:
        """Settings, sources, tokenizer and bank: what the result is a function of."""
        if not self.fingerprint:
            self.stages.report("fingerprint", 0, None)
            path, bank = self.stages.settings.tokenizer.path, self.stages.bank
            self.fingerprint = {
                "settings": self.stages.settings.to_data(),
                "sources": [source.fingerprint() for source in self.stages.sources],
                "tokenizer": Tokenizer.load(path).fingerprint if path else None,
                **({"bank": f"version {bank.version}, {bank.hash}"} if bank else {}),
            }
        return self.fingerprint

    def _check_same(self, before: Mapping[str, Any], what: str) -> None:
        changes = differences(before["settings"], self.stages.settings.to_data())
        if changes:
            shown = "; ".join(changes[:6])
            raise UsageError(f"{what} with other settings: {shown}; set them back, or choose another output")
        now = self._fingerprint()
        check_fingerprint(before["sources"], now["sources"])
        if before["tokenizer"] != now["tokenizer"]:
            path = self.stages.settings.tokenizer.path
            raise LichenError(f"{path}: the tokenizer changed since; restore it, or prepare into a new folder")
        if before.get("bank") != now.get("bank"):
            path = self.stages.settings.knowledge.bank
            raise LichenError(f"{path}: the bank changed since; take the changes back, or prepare into a new folder")


def _remove_work(partial: Path) -> None:
    """Remove everything but the lock, the plan first: without it the rest is never taken for whole."""
    (partial / "plan.json").unlink(missing_ok=True)
    for path in partial.iterdir():
        if path.is_dir():
            remove_folder(path)
        elif path.name != LOCK:
            unlink(path)


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
