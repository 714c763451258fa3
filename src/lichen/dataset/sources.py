"""Where documents come from: paths become a sorted list of files, each with its format, and a fingerprint.

A source is a file, a folder or a glob; its files are read in sorted order, so that the same files give the same documents
in the same order on every machine. Everything that can be wrong with a path is said before anything is read: a missing
path with the nearest name beside it, an unknown format, a source without a byte. `fingerprint` holds the SHA-256 of every
file, and `check_fingerprint` names the file that changed since.

>>> import tempfile
>>> folder = Path(tempfile.mkdtemp())
>>> for name in ("b.jsonl", "a.txt", "notes.pdf", ".hidden.txt"):
...     _ = (folder / name).write_text('{"text": "moss"}')
>>> [(file.path.name, file.format) for file in open_source(SourceConfig(path=folder, name="s")).files]
[('a.txt', 'text'), ('b.jsonl', 'jsonl')]
>>> open_source(SourceConfig(path=folder / "b.json", name="s"))
Traceback (most recent call last):
    ...
lichen.config.errors.UsageError: .../b.json: no such file or folder (nearest: b.jsonl; available: a.txt, b.jsonl, notes.pdf)
"""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lichen.config.cleaning import SourceConfig
from lichen.config.errors import LichenError, UsageError, nearest
from lichen.core.folders import sha256_file

FORMATS = {
    ".jsonl": "jsonl",
    ".json": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".txt": "text",
    ".text": "text",
    ".md": "text",
}
COMPRESSIONS = (".gz", ".zst")


class SourceError(LichenError):
    """A source can not be read: missing, empty, damaged, or mostly unreadable. Carries the source's name."""

    def __init__(self, message: str, source: str = ""):
        super().__init__(message)
        self.source = source

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.source)


@dataclass(frozen=True)
class SourceFile:
    """One file (or one datasets folder) of a source."""

    path: Path
    format: str
    label: str
    """How the file is called in rejects and fingerprints: its path as the user wrote it, or found below that."""

    @property
    def compression(self) -> str:
        """'.gz', '.zst' or ''."""
        return self.path.suffix.lower() if self.path.suffix.lower() in COMPRESSIONS else ""


@dataclass(frozen=True)
class Source:
    """A source whose files are known."""

    name: str
    config: SourceConfig
    files: tuple[SourceFile, ...]

    @property
    def split(self) -> str:
        """What a document is in plain text: 'file', 'paragraph' or 'line'."""
        if self.config.split != "auto":
            return self.config.split
        return "file" if sum(file.format == "text" for file in self.files) > 1 else "paragraph"

    def fingerprint(self) -> dict[str, Any]:
        """What the documents depend on: the settings of reading, and size and SHA-256 of every file, in order."""
        reading: dict[str, Any] = {"format": self.config.format, "field": self.config.field, "split": self.split}
        if any(file.format == "text" for file in self.files):
            reading["paragraph_characters"] = self.config.paragraph_characters
        files: dict[str, Any] = {}
        try:
            for label, path in self._bytes_on_disk():
                files[label] = {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
        except OSError as error:
            raise SourceError(f"{error.filename}: {error.strerror} (source {self.name})", self.name) from None
        return {"name": self.name, "reading": reading, "files": files}

    def _bytes_on_disk(self) -> Iterator[tuple[str, Path]]:
        for file in self.files:
            if file.format == "datasets":
                for path in _files_below(file.path):
                    yield f"{file.label}/{path.relative_to(file.path).as_posix()}", path
            else:
                yield file.label, file.path


def open_sources(configs: Sequence[SourceConfig]) -> tuple[Source, ...]:
    """Find the files of all sources; names are made unique.

    Raises:
        UsageError: no source, a path that does not exist, an unknown format, a name given twice.
        SourceError: a source without content.
    """
    if not configs:
        raise UsageError("no source of documents is given: name a file, a folder or a glob")
    return tuple(open_source(config, name) for config, name in zip(configs, source_names(configs), strict=True))


def open_source(config: SourceConfig, name: str | None = None) -> Source:
    """Find the files of one source; see `open_sources`."""
    name = name or config.name or _name_of(config.path)
    files = tuple(_source_files(config))
    if not files:
        known = ", ".join(FORMATS)
        raise SourceError(
            f"{config.path}: holds no file of a known kind ({known}, also .gz, .zst); or set format", name
        )
    source = Source(name, config, files)
    if not any(path.stat().st_size for _, path in source._bytes_on_disk()):
        raise SourceError(f"{config.path}: is empty; give a source with documents", name)
    return source


def source_names(configs: Sequence[SourceConfig]) -> tuple[str, ...]:
    """A unique name for every source, valid as a folder: the one given, or one made from the path.

    >>> source_names([SourceConfig(path=Path(p)) for p in ("a/poems.jsonl.gz", "b/poems.parquet", "*.txt", "唐詩")])
    ('poems', 'poems-2', 'txt', 'source')
    """
    given = [config.name for config in configs if config.name]
    if twice := {name for name in given if given.count(name) > 1}:
        raise UsageError(f"two sources are called {sorted(twice)[0]!r}: give each its own name")
    names: list[str] = []
    for config in configs:
        name = base = config.name or _name_of(config.path)
        number = 1
        while not config.name and (name in names or name in given):
            number += 1
            name = f"{base}-{number}"
        names.append(name)
    return tuple(names)


def check_fingerprint(then: Iterable[dict[str, Any]], now: Iterable[dict[str, Any]]) -> None:
    """Raise `SourceError` naming what changed between two lists of `Source.fingerprint`."""
    old = {fingerprint["name"]: fingerprint for fingerprint in then}
    new = {fingerprint["name"]: fingerprint for fingerprint in now}
    remedy = "restore it, or prepare into a new folder"
    if list(old) != list(new):
        raise SourceError(f"the sources changed from {', '.join(old)} to {', '.join(new)} since preparing; {remedy}")
    for name, before in old.items():
        after = new[name]
        if before["reading"] != after["reading"]:
            raise SourceError(
                f"source {name} is read otherwise than when preparing ({after['reading']}); {remedy}", name
            )
        for label in dict.fromkeys([*before["files"], *after["files"]]):
            if label not in after["files"]:
                raise SourceError(f"{label}: missing since preparing (source {name}); {remedy}", name)
            if before["files"].get(label) != after["files"][label]:
                word = "changed" if label in before["files"] else "added"
                raise SourceError(f"{label}: {word} since preparing (source {name}); {remedy}", name)


def _source_files(config: SourceConfig) -> Iterator[SourceFile]:
    path = config.path
    if path.is_dir():
        yield from _folder_files(config)
    elif path.exists():
        yield SourceFile(path, _format_of(path, config), str(path))
    elif glob.has_magic(str(path)):
        matches = sorted(Path(match) for match in glob.glob(str(path), recursive=True))  # noqa: PTH207 - ** over any root
        for match in (match for match in matches if match.is_file()):
            yield SourceFile(match, _format_of(match, config), str(match))
        if not matches:
            raise UsageError(f"{path}: matches no file; check the pattern")
    else:
        parent = path.parent
        while not parent.is_dir():
            parent = parent.parent
        missing = path.relative_to(parent).parts[0]
        names = [entry.name for entry in parent.iterdir() if not entry.name.startswith(".")]
        raise UsageError(f"{path}: no such file or folder{nearest(missing, names)}")


def _folder_files(config: SourceConfig) -> Iterator[SourceFile]:
    path = config.path
    if config.format in ("auto", "datasets") and _is_datasets_folder(path):
        yield SourceFile(path, "datasets", str(path))
        return
    if (path / "dataset_dict.json").exists() and config.format in ("auto", "datasets"):
        splits = [entry.name for entry in path.iterdir() if entry.is_dir()]
        raise UsageError(f"{path}: holds several splits; name one{nearest('train', splits)}")
    if config.format == "datasets":
        raise UsageError(f"{path}: is no folder written by datasets' save_to_disk (state.json is missing)")
    for file in _files_below(path):
        format = FORMATS.get(_suffix(file), "") if config.format == "auto" else config.format
        if format:
            yield SourceFile(file, format, str(path / file.relative_to(path)))


def _files_below(path: Path) -> list[Path]:
    """All files below a folder that are not hidden, sorted by their relative path."""
    files = (file for file in path.rglob("*") if file.is_file())
    shown = [file for file in files if not any(part.startswith(".") for part in file.relative_to(path).parts)]
    return sorted(shown, key=lambda file: file.relative_to(path).as_posix())


def _is_datasets_folder(path: Path) -> bool:
    return (path / "state.json").exists() and (path / "dataset_info.json").exists()


def _format_of(path: Path, config: SourceConfig) -> str:
    if config.format == "datasets":
        raise UsageError(f"{path}: format datasets needs a folder written by save_to_disk")
    if config.format != "auto":
        return config.format
    if format := FORMATS.get(_suffix(path)):
        return format
    raise UsageError(f"{path}: unknown kind of file{nearest(_suffix(path), FORMATS)}; set format to say what it is")


def _suffix(path: Path) -> str:
    return (path.with_suffix("") if path.suffix.lower() in COMPRESSIONS else path).suffix.lower()


def _name_of(path: Path) -> str:
    name = path.name
    for suffix in (*COMPRESSIONS, *FORMATS):
        if name.lower().endswith(suffix) and len(name) > len(suffix) and not glob.has_magic(name):
            name = name[: -len(suffix)]
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._-")[:80]
    return name or "source"


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
