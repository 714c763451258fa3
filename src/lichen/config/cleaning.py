"""What to read and how to clean it: sources, normalisation, filters, duplicates, tolerance for bad lines.

The repetition limits are those of Gopher (Rae et al., 2021, "Scaling language models", table A1), counted in units that
exist in every script: a word where words are spaced, a character where they are not (Chinese, Japanese, Thai …).

>>> SourceConfig(path=Path("poems.jsonl")).field
'text'
>>> CleanConfig().deduplicate.threshold, CleanConfig().max_bad_fraction
(0.8, 0.01)
>>> CleanConfig.from_data({"min_characters": 9, "max_characters": 3})
Traceback (most recent call last):
    ...
lichen.config.errors.ConfigError: 1 problem in the configuration:
  ...max_characters (3) lies below min_characters (9)
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from lichen.config.base import Config

MEBIBYTE = 1 << 20


class SourceConfig(Config):
    """One source of documents."""

    path: Path
    """A file, a folder (read recursively, in sorted order) or a glob such as data/**/*.jsonl.gz."""
    format: Literal["auto", "jsonl", "parquet", "text", "datasets"] = "auto"
    """auto goes by file name: .jsonl .json .ndjson .parquet .txt .text .md, each also .gz or .zst; or a datasets folder."""
    field: str = Field(default="text", min_length=1)
    """Key of the text in a JSON object or column; a dotted path such as content.text reaches into nested objects."""
    split: Literal["auto", "file", "paragraph", "line"] = "auto"
    """What a document is in plain text. auto: the file where the source has several, else joined paragraphs."""
    paragraph_characters: int = Field(default=2000, ge=0)
    """Split by paragraph: consecutive paragraphs are joined until they have so many characters; 0 joins none."""
    weight: float | None = Field(default=None, gt=0)
    """Share of this source in the mixture, relative to the others; null weighs sources by their size."""
    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,79}$")
    """Name of the source in folders, plots and statistics; made from the path unless given."""


class RepetitionConfig(Config):
    """Documents that mostly repeat themselves are dropped; 1 switches a limit off."""

    min_units: int = Field(default=100, ge=1)
    """Documents with fewer units (words, or characters of unspaced scripts) are not judged."""
    max_duplicate_line_fraction: float = Field(default=0.3, gt=0, le=1)
    """Largest share of characters in lines that repeat an earlier line of the document."""
    max_top_2_gram_fraction: float = Field(default=0.2, gt=0, le=1)
    """Largest share of the document that its most frequent pair of units may cover, if that stands at least four times."""
    max_top_3_gram_fraction: float = Field(default=0.18, gt=0, le=1)
    """Largest share of the document that its most frequent triple of units may cover."""
    max_top_4_gram_fraction: float = Field(default=0.16, gt=0, le=1)
    """Largest share of the document that its most frequent four units in a row may cover."""
    max_duplicate_10_gram_fraction: float = Field(default=0.4, gt=0, le=1)
    """Largest share of ten units in a row that repeat earlier ones. Gopher drops above 0.1, which hits program text."""


class DeduplicateConfig(Config):
    """Removal of documents that are, or nearly are, an earlier one. The first one met is kept."""

    exact: bool = True
    """Drop documents whose normalised text equals that of an earlier one."""
    near: bool = True
    """Drop documents nearly equal to an earlier one, found by MinHash signatures and verified by their agreement."""
    threshold: float = Field(default=0.8, gt=0, le=1)
    """Estimated share of common shingles (Jaccard similarity) from which two documents are nearly equal."""
    permutations: int = Field(default=128, ge=16, le=1024)
    """Length of a signature. The estimate's standard error is about 0.5 / sqrt(permutations); each takes 4 bytes of disk."""
    shingle: Literal["unit", "character"] = "unit"
    """unit: words, and single characters of unspaced scripts; character: letters of every script."""
    shingle_size: int = Field(default=5, ge=1, le=32)
    """Units in a row that make a shingle."""
    memory_mebibytes: int = Field(default=512, ge=1)
    """Memory for sorting; more documents than fit are sorted range by range from disk."""


class CleanConfig(Config):
    """How documents are validated, normalised, filtered and deduplicated."""

    normalisation: Literal["nfc", "nfkc", "none"] = "nfc"
    """Unicode normal form. nfkc also folds widths and ligatures, and with them Chinese punctuation."""
    unify_newlines: bool = True
    """Write every kind of line end as a newline character."""
    strip_controls: bool = True
    """Remove control characters other than newline and tab, and byte order marks."""
    strip: bool = True
    """Remove blank lines before the text and white space after it."""
    functions: tuple[Annotated[str, Field(pattern=r"^[\w.]+:\w+$")], ...] = ()
    """Steps of one's own after normalisation, as package.module:function: text -> text, or None to drop the document."""
    min_characters: int = Field(default=1, ge=1)
    """Shorter documents are dropped."""
    max_characters: int | None = Field(default=None, ge=1)
    """Longer documents are dropped; null sets no limit but that of max_line_bytes."""
    repetition: RepetitionConfig = RepetitionConfig()
    """Limits of repetition within a document."""
    deduplicate: DeduplicateConfig = DeduplicateConfig()
    """Removal of documents met before."""
    max_bad_fraction: float = Field(default=0.01, ge=0, le=1)
    """Share of a source's lines that may be bad, empty ones aside; above it the preparation stops. All are always listed."""
    max_line_bytes: int = Field(default=64 * MEBIBYTE, ge=64)
    """A longer line, or document of plain text, is rejected without holding it in memory."""
    max_nesting: int = Field(default=64, ge=1, le=512)
    """A JSON line nested deeper is rejected."""
    bad_source: Literal["stop", "skip"] = "stop"
    """What a damaged source, or one with too many bad lines, does: stop, or be left out with the new mixture stated."""
    chunk_documents: int = Field(default=8192, ge=1)
    """Documents handled at once; what was handled is not done again after an interruption. No effect on what is kept."""
    chunk_bytes: int = Field(default=8 * MEBIBYTE, ge=1)
    """Bytes after which a chunk ends early. No effect on what is kept."""

    @model_validator(mode="after")
    def _lengths_in_order(self) -> Self:
        if self.max_characters is not None and self.max_characters < self.min_characters:
            raise ValueError(
                f"max_characters ({self.max_characters}) lies below min_characters ({self.min_characters})"
            )
        return self


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
