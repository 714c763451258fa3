"""Tokenizers that are not byte-level, for what has to hold with any."""

from typing import Any

from lichen.dataset.tokenizer import Tokenizer


def word_tokenizer(*words: str, normalizer: dict[str, Any] | None = None) -> Tokenizer:
    """A tokenizer that knows the given words alone, one token each; any other is unknown."""
    vocabulary = {word: number for number, word in enumerate(("[UNK]", "</s>", *words))}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    added = [{"id": number, "content": content, **flags} for content, number in (("[UNK]", 0), ("</s>", 1))]
    parts = {
        "normalizer": normalizer,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
    }
    model = {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"}
    data = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, **parts, "model": model}
    return Tokenizer(data, {"eos_token": "</s>", "unk_token": "[UNK]"})
