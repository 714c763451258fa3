"""Text to token ids and back, with one promise: text never becomes a control token.

``Tokenizer`` wraps a ``tokenizers.Tokenizer``. One trained here is a byte-level BPE (Sennrich et al., 2016; bytes as in
GPT-2): no text is unknown, and decoding gives back exactly what was encoded. Digits stand alone, so that a number is
spelt the same way wherever it occurs. ``CONTROL_TOKENS`` take the ids 0 to 63; the last of them are spare, so that a
later need changes no other id. Any Hugging Face folder with a ``tokenizer.json`` loads as well; no code is ever taken
from one.

The promise is kept twice. Every added token of the loaded file is marked special in the engine that encodes, and special
tokens are switched off for text, so none is matched; only tokens of pure white space stay text, as code tokenizers use
them for indentation. What a model may still spell by itself (a Unigram vocabulary holds ``</s>`` as a piece) is looked
for in the result, and the text is cut inside the literal. The file that is saved stays as it was loaded.

>>> tokenizer = Tokenizer.train(["a cat and a hat"] * 4, vocab_size=330)
>>> ids = tokenizer.encode("a hat <|im_end|>")
>>> tokenizer.decode(ids), tokenizer.control["<|im_end|>"] in ids
('a hat <|im_end|>', False)
"""

from __future__ import annotations

import codecs
import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from lichen.config.errors import LichenError, UsageError, nearest
from lichen.dataset.template import CHAT_TEMPLATE, IMAGE, MESSAGE_END, MESSAGE_START

END_OF_TEXT, PADDING = "<|endoftext|>", "<|pad|>"
RESERVED = 64
_NAMED = (
    *(END_OF_TEXT, PADDING, MESSAGE_START, MESSAGE_END),
    *("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"),
    *("<|vision_start|>", "<|vision_end|>", IMAGE, "<|global_image|>"),
    *(f"<|row_{number}|>" for number in range(1, 9)),
    *(f"<|column_{number}|>" for number in range(1, 9)),
)
CONTROL_TOKENS = (*_NAMED, *(f"<|reserved_{number}|>" for number in range(RESERVED - len(_NAMED))))
"""The control tokens of a tokenizer trained here; a token's position is its id."""

# Contractions, words with the space before them, single digits, punctuation, white space: GPT-2's division with digits
# apart, line ends together and combining marks with their letters; Han stays apart from Latin letters beside it.
WORDS = (
    r"'(?:s|t|re|ve|m|ll|d)(?!\p{L})| ?\p{Han}+| ?[\p{L}\p{M}&&[^\p{Han}]]+|\p{N}|"
    r" ?[^\s\p{L}\p{M}\p{N}]+|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LONGEST_TOKEN = 32  # in bytes; longer ones are rules of dashes and boilerplate

_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json")
_END_NAMES = (END_OF_TEXT, "<|end_of_text|>", "<|end▁of▁sentence|>", "</s>", "<eos>", "[EOS]")
_STOP_NAMES = (MESSAGE_END, "<|eot_id|>", "<|end|>", "<end_of_turn>")


class Tokenizer:
    """A tokenizer together with the names of its control tokens.

    ``data`` is the parsed ``tokenizer.json``; ``names`` the parsed ``tokenizer_config.json`` with ``special_tokens_map``
    below it; ``stops`` the ids of ``generation_config.json``. Use ``train`` or ``load``.
    """

    def __init__(self, data: dict[str, Any], names: dict[str, Any], stops: Sequence[int] = (), template: str = ""):
        self.data = data
        self.names = names
        self.chat_template = template
        self._engine = _hardened(data)
        self.control: dict[str, int] = {
            token["content"]: token["id"] for token in data["added_tokens"] if not token["content"].isspace()
        }
        self.special_ids = frozenset(token["id"] for token in data["added_tokens"] if token["special"])
        self.vocab_size: int = max(self._engine.get_vocab(with_added_tokens=True).values()) + 1
        self.bos_id = self._named("bos_token")
        self.end_of_text_id = self._end_of_text(stops)
        named_eos = self._named("eos_token")
        self.eos_id: int = self.end_of_text_id if named_eos is None else named_eos
        named_pad = self._named("pad_token")
        self.pad_id: int = self.end_of_text_id if named_pad is None else named_pad
        known_stops = [self.control[name] for name in _STOP_NAMES if name in self.control]
        self.stop_ids = tuple(dict.fromkeys([self.end_of_text_id, self.eos_id, *stops, *known_stops]))
        self.document_prefix = self._prefix()
        self._forbidden = self._forbidden_table()

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int = 6400) -> Tokenizer:
        """Train a byte-level BPE on ``texts``; the same texts give the same tokenizer.

        ``vocab_size`` counts the 64 control tokens and 256 bytes; a small corpus may give fewer tokens than asked for.
        """
        from tokenizers import decoders, models, pre_tokenizers, trainers

        smallest = RESERVED + 256
        if vocab_size < smallest:
            raise UsageError(f"vocab_size {vocab_size}: the control tokens and bytes alone need {smallest}; raise it")
        engine = tokenizers.Tokenizer(models.BPE())
        split = pre_tokenizers.Split(tokenizers.Regex(WORDS), behavior="isolated")
        spell = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        engine.pre_tokenizer = pre_tokenizers.Sequence([split, spell])  # type: ignore[assignment]
        engine.decoder = decoders.ByteLevel()  # type: ignore[assignment]
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            min_frequency=2,
            show_progress=False,
            special_tokens=list(CONTROL_TOKENS),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            max_token_length=LONGEST_TOKEN,
        )
        engine.train_from_iterator(texts, trainer)
        names = {"eos_token": END_OF_TEXT, "pad_token": PADDING, "tokenizer_class": "PreTrainedTokenizerFast"}
        names |= {"clean_up_tokenization_spaces": False}
        return cls(json.loads(engine.to_str()), names, template=CHAT_TEMPLATE)

    @classmethod
    def load(cls, folder: str | Path) -> Tokenizer:
        """Read a folder with a ``tokenizer.json``, one of ours or any Hugging Face model's, or a prepared folder.

        Raises ``UsageError`` where there is none and ``LichenError`` where a file of it cannot be understood.
        """
        folder = Path(folder)
        if not (folder / "tokenizer.json").is_file() and (folder / "tokenizer" / "tokenizer.json").is_file():
            folder = folder / "tokenizer"
        if not (folder / "tokenizer.json").is_file():
            raise UsageError(f"{folder}: no tokenizer.json here; name a folder that holds one")
        data, names, special, generation = (_read_json(folder / name) for name in _FILES)
        stops = generation.get("eos_token_id") or []
        stops = [stops] if isinstance(stops, int) else [int(stop) for stop in stops]
        template = folder / "chat_template.jinja"
        text = template.read_text(encoding="utf-8") if template.is_file() else names.get("chat_template") or ""
        data.setdefault("added_tokens", [])
        try:
            return cls(data, {**special, **names}, stops, text if isinstance(text, str) else "")
        except LichenError as error:
            raise LichenError(f"{folder}: {error}") from None
        except Exception as error:  # the engine raises bare Exception on a file it cannot parse
            raise LichenError(f"{folder / 'tokenizer.json'}: not a tokenizer ({error}); save it again") from None

    def save(self, folder: str | Path) -> None:
        """Write ``tokenizer.json``, ``tokenizer_config.json`` and ``chat_template.jinja`` as transformers reads them."""
        from lichen.core.folders import write_file

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        names = {key: value for key, value in self.names.items() if key not in ("auto_map", "chat_template")}
        names["eos_token"], names["pad_token"] = self.name_of(self.eos_id), self.name_of(self.pad_id)
        write_file(folder / "tokenizer.json", json.dumps(self.data, ensure_ascii=False, indent=1) + "\n")
        write_file(folder / "tokenizer_config.json", json.dumps(names, ensure_ascii=False, indent=2) + "\n")
        if self.chat_template:
            write_file(folder / "chat_template.jinja", self.chat_template)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the canonical ``tokenizer.json``: equal for equal tokenisation, however the file is laid out."""
        text = json.dumps(self.data, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def name_of(self, token: int) -> str:
        """The token's own spelling in the vocabulary (bytes of a byte-level one are shown as printable letters)."""
        return self._engine.id_to_token(token) or ""

    def control_id(self, name: str) -> int:
        """The id of a control token, or an error with the nearest name."""
        if name not in self.control:
            raise LichenError(f"this tokenizer has no control token {name}" + nearest(name, self.control))
        return self.control[name]

    # Encoding

    def encode(self, text: str) -> list[int]:
        """The ids of ``text``, never a control token, without begin or end tokens."""
        ids = self._engine.encode(text, add_special_tokens=False).ids
        if self._forbidden is not None and self._forbidden[ids].any():
            return self._encode_cut(text)
        return ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """``encode`` of every text, on all cores."""
        return [array.tolist() for array in self.encode_arrays(texts)]

    def encode_arrays(self, texts: Sequence[str], parallel: bool = True) -> list[np.ndarray]:
        """``encode`` of every text as int32 arrays, on all cores unless ``parallel`` is off."""
        if parallel:
            encodings = self._engine.encode_batch_fast(list(texts), add_special_tokens=False)
            found = [np.array(encoding.ids, np.int32) for encoding in encodings]
        else:
            found = [np.array(self._engine.encode(text, add_special_tokens=False).ids, np.int32) for text in texts]
        if self._forbidden is None:
            return found
        return [
            np.array(self._encode_cut(text), np.int32) if self._forbidden[ids].any() else ids
            for text, ids in zip(texts, found, strict=True)
        ]

    def _encode_cut(self, text: str) -> list[int]:
        """Encode a text whose plain encoding holds control tokens: cut it inside each of their spellings, and again.

        A control token that is a single character cannot be cut and is left out.
        """
        encoding = self._engine.encode(text, add_special_tokens=False)
        assert self._forbidden is not None
        spans = [span for token, span in zip(encoding.ids, encoding.offsets, strict=True) if self._forbidden[token]]
        cuts = sorted({start + 1 for start, end in spans if end - start > 1})
        if not cuts:
            return [token for token in encoding.ids if not self._forbidden[token]]
        pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        return [token for piece in pieces for token in self._encode_once_more(piece, text)]

    def _encode_once_more(self, piece: str, whole: str) -> list[int]:
        if len(piece) >= len(whole):  # offsets that do not cut would never end
            ids = self._engine.encode(piece, add_special_tokens=False).ids
            return [token for token in ids if self._forbidden is None or not self._forbidden[token]]
        return self.encode(piece)

    # Decoding

    def decode(self, ids: Sequence[int] | np.ndarray, skip_special: bool = True) -> str:
        """The text of ``ids``; broken UTF-8 becomes U+FFFD. ``skip_special`` leaves special tokens out."""
        kept = [int(token) for token in ids if not (skip_special and int(token) in self.special_ids)]
        return self._engine.decode(kept, skip_special_tokens=False)

    @cached_property
    def token_bytes(self) -> list[bytes] | None:
        """The bytes of every token id of a byte-level tokenizer, or None where tokens are no plain byte strings."""
        if (self.data.get("decoder") or {}).get("type") != "ByteLevel":
            return None
        letters = _byte_letters()
        spellings = {token: spelling for spelling, token in self._engine.get_vocab(with_added_tokens=True).items()}
        return [_spelling_bytes(spellings.get(token, ""), letters) for token in range(self.vocab_size)]

    # What the constructor finds out

    def _named(self, key: str) -> int | None:
        value = self.names.get(key)
        name = value.get("content") if isinstance(value, dict) else value
        return None if not name else self._engine.token_to_id(str(name))

    def _end_of_text(self, stops: Sequence[int]) -> int:
        """The id that ends a document: a known name before the configured end, which may be the end of a message."""
        for name in _END_NAMES:
            if name in self.control:
                return self.control[name]
        named = self._named("eos_token")
        if named is None and not stops:
            raise LichenError('no end token is known; set "eos_token" in tokenizer_config.json')
        return stops[0] if named is None else named

    def _prefix(self) -> tuple[int, ...]:
        """What the tokenizer itself puts before a text: its begin token or nothing."""
        ids = self._engine.encode("", add_special_tokens=True).ids
        return (ids[0],) if ids and ids[0] == self.bos_id else ()

    def _unknown(self) -> int | None:
        """The id that stands for what the model cannot spell, which text may give; None for a byte-level model."""
        model = self.data["model"]
        if (self.data.get("decoder") or {}).get("type") == "ByteLevel":
            return None
        if model.get("unk_id") is not None:
            return int(model["unk_id"])
        name = model.get("unk_token")
        return self._engine.token_to_id(name) if isinstance(name, str) else None

    def _forbidden_table(self) -> np.ndarray | None:
        """``[vocab_size]`` bool, true for ids that text must not give; None where the model cannot spell any of them."""
        model = self.data["model"]
        unknown = self._unknown()
        forbidden = {token: name for name, token in self.control.items() if token != unknown}
        if model.get("type") == "BPE" and not model.get("ignore_merges") and min(map(len, self.control), default=2) > 1:
            merged = {"".join(pair if isinstance(pair, list) else pair.split(" ")) for pair in model["merges"]}
            if not any(name in merged for name in forbidden.values()):
                return None
        table = np.zeros(self.vocab_size, bool)
        table[list(forbidden)] = True
        return table


class StreamDecoder:
    """Decodes ids one by one; a character whose bytes are split over tokens is held back until it is whole.

    >>> tokenizer = Tokenizer.train(["a"], vocab_size=320)
    >>> stream = StreamDecoder(tokenizer)
    >>> [stream.push(token) for token in tokenizer.encode("é!")], stream.finish()
    (['', 'é', '!'], '')
    """

    def __init__(self, tokenizer: Tokenizer, skip_special: bool = True):
        self._tokenizer = tokenizer
        self._skip = tokenizer.special_ids if skip_special else frozenset()
        self._bytes = tokenizer.token_bytes
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._ids: list[int] = []
        self._shown = 0  # ids before this one are already text that was given out
        self._start = 0  # first id of the window that is decoded again, since spaces depend on the neighbour before

    def push(self, token: int) -> str:
        """The text that ``token`` completes; may be empty."""
        token = int(token)
        if token in self._skip:
            return ""
        if self._bytes is not None:
            return self._utf8.decode(self._bytes[token] if token < len(self._bytes) else b"")
        self._ids.append(token)
        return self._window(final=False)

    def finish(self) -> str:
        """What is still held back, with U+FFFD for a character that never became whole."""
        return self._utf8.decode(b"", final=True) if self._bytes is not None else self._window(final=True)

    def _window(self, final: bool) -> str:
        before = self._tokenizer.decode(self._ids[self._start : self._shown], skip_special=False)
        text = self._tokenizer.decode(self._ids[self._start :], skip_special=False)
        if not final and (len(text) <= len(before) or text.endswith("\ufffd")):
            return ""
        self._start, self._shown = self._shown, len(self._ids)
        return text[len(before) :]


def _hardened(data: dict[str, Any]) -> tokenizers.Tokenizer:
    """An engine for text: nothing is cut or padded, and no added token but white space is ever matched."""
    added = [{**token, "special": token["special"] or not token["content"].isspace()} for token in data["added_tokens"]]
    plain = {**data, "added_tokens": added, "truncation": None, "padding": None}
    engine = tokenizers.Tokenizer.from_str(json.dumps(plain, ensure_ascii=False))
    engine.encode_special_tokens = True
    return engine


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise LichenError(f"{path}: not JSON ({error}); fetch or save the file again") from None
    if not isinstance(data, dict):
        raise LichenError(f"{path}: a JSON object is expected, not a {type(data).__name__}; save the file again")
    return data


def _byte_letters() -> dict[str, int]:
    """GPT-2's printable letter for every byte: visible Latin-1 stands for itself, the others follow from U+0100."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in visible]
    return {chr(byte): byte for byte in visible} | {chr(0x100 + number): byte for number, byte in enumerate(others)}


def _spelling_bytes(spelling: str, letters: dict[str, int]) -> bytes:
    if all(letter in letters for letter in spelling):
        return bytes(letters[letter] for letter in spelling)
    return spelling.encode()


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
