"""Text never becomes a control token, whoever made the tokenizer; decoding gives back what was encoded."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Engine

from lichen.config.errors import LichenError, UsageError
from lichen.dataset.tokenizer import CONTROL_TOKENS, RESERVED, StreamDecoder, Tokenizer

TEXTS = [
    "The cat sat on the mat; the cat's 123 hats.",
    "秦川雄帝宅，函谷壯皇居。綺殿千尋起，離宮百雉餘。",
    "don't\n\n  café नमस्ते 🙂",
] * 3


@pytest.fixture(scope="module")
def own() -> Tokenizer:
    return Tokenizer.train(TEXTS, vocab_size=420)


def save_foreign(engine: Engine, folder: Path, **config: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    engine.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def byte_level(folder: Path) -> Path:
    """A Qwen-like one: ``<think>`` and a run of spaces are added tokens that are not special."""
    engine = Engine(models.BPE())
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    engine.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    engine.train_from_iterator(TEXTS, trainer)
    engine.add_special_tokens(["<|im_start|>", "<|im_end|>", "＜特 殊＞"])
    engine.add_tokens([AddedToken("<think>", normalized=False), AddedToken("    ", normalized=False), "USER:"])
    engine.enable_truncation(4)
    return save_foreign(engine, folder, eos_token="<|im_end|>", pad_token="<|endoftext|>")


def unigram(folder: Path) -> Path:
    """A T5-like one: the model itself knows ``</s>`` as a piece."""
    vocabulary = [("<unk>", 0.0), ("</s>", 0.0), *((letter, -5.0) for letter in "abcdefghijklmnopqrstuvwxyz</>▁ ")]
    engine = Engine(models.Unigram(vocabulary, unk_id=0))
    engine.add_special_tokens(["<unk>", "</s>"])
    return save_foreign(engine, folder, eos_token={"content": "</s>"}, unk_token="<unk>")


def whole_words(folder: Path) -> Path:
    """One that takes a whole word from the vocabulary before it merges, as Llama 3's does; its words are lines."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate([*alphabet, "<|im_end|>"])}
    engine = Engine(models.BPE(vocabulary, [], ignore_merges=True))
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    engine.decoder = decoders.ByteLevel()
    engine.add_special_tokens(["<|im_end|>"])
    return save_foreign(engine, folder, eos_token="<|im_end|>")


FOREIGN = {"byte_level": byte_level, "unigram": unigram, "whole_words": whole_words}


def test_control_tokens_have_the_lowest_ids_and_spares(own: Tokenizer) -> None:
    assert len(set(CONTROL_TOKENS)) == RESERVED
    assert [own.control[name] for name in CONTROL_TOKENS] == list(range(RESERVED))
    assert sum("reserved" in name for name in CONTROL_TOKENS) >= 16
    assert (own.end_of_text_id, own.eos_id, own.pad_id, own.bos_id) == (0, 0, 1, None)
    assert own.stop_ids == (0, own.control["<|im_end|>"])


@pytest.mark.parametrize("text", [*TEXTS[:3], "", " ", "\r\n\t x", "\x00\ufffd", "a" * 5000, "苔" * 500])
def test_decoding_gives_back_the_text(own: Tokenizer, text: str) -> None:
    assert own.decode(own.encode(text)) == text


def test_chinese_is_compressed_and_digits_stand_alone(own: Tokenizer) -> None:
    assert len(own.encode("離宮百雉餘")) < len("離宮百雉餘".encode())
    assert len(own.encode("123")) == 3


def hostile_texts(names: list[str]) -> list[str]:
    alone = [*names, *(f"a{name}b" for name in names), *(f" {name}\n" for name in names)]
    nested = [f"{name[:3]}{name}{name[3:]}" for name in names]
    return [*alone, *nested, "".join(names), " ".join(names), "\n".join(names * 2)]


def test_hostile_text_gives_no_control_token(own: Tokenizer) -> None:
    for text in hostile_texts(list(CONTROL_TOKENS)):
        assert min(own.encode(text)) >= RESERVED, text
        assert own.decode(own.encode(text)) == text


@pytest.mark.parametrize("kind", FOREIGN)
def test_hostile_text_gives_no_control_token_of_a_foreign_tokenizer(kind: str, tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(FOREIGN[kind](tmp_path))
    forbidden = set(tokenizer.control.values()) - {tokenizer.control.get("<unk>")}
    texts = hostile_texts(list(tokenizer.control))
    for text, batched in zip(texts, tokenizer.encode_batch(texts), strict=True):
        ids = tokenizer.encode(text)
        assert not forbidden & set(ids), text
        assert ids == batched
        if kind != "unigram":  # its letters are few
            assert tokenizer.decode(ids, skip_special=False) == text


def test_every_load_keeps_text_apart(own: Tokenizer, tmp_path: Path) -> None:
    own.save(tmp_path / "a")
    first = Tokenizer.load(tmp_path / "a")
    first.save(tmp_path / "b")
    second = Tokenizer.load(tmp_path / "b")
    assert min(second.encode("<|im_end|><think>")) >= RESERVED
    assert second.fingerprint == first.fingerprint == own.fingerprint
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_foreign_names_and_white_space(tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(byte_level(tmp_path))
    assert tokenizer.name_of(tokenizer.end_of_text_id) == "<|endoftext|>"
    assert tokenizer.name_of(tokenizer.eos_id) == "<|im_end|>"
    assert set(tokenizer.stop_ids) == {tokenizer.end_of_text_id, tokenizer.eos_id}
    assert tokenizer.name_of(tokenizer.encode("    x")[0]) == "    "  # indentation stays one token
    assert len(tokenizer.encode("the cat sat on the mat")) > 4  # no truncation
    ids = [tokenizer.control["<think>"], *tokenizer.encode("cat"), tokenizer.eos_id]
    assert tokenizer.decode(ids) == "<think>cat"  # what is not special is shown


def test_a_folder_without_an_end_token_is_refused(tmp_path: Path) -> None:
    engine = Engine(models.BPE({"a": 0}, []))
    with pytest.raises(LichenError, match=r"set \"eos_token\" in tokenizer_config.json"):
        Tokenizer.load(save_foreign(engine, tmp_path))
    with pytest.raises(UsageError, match=r"no tokenizer\.json here"):
        Tokenizer.load(tmp_path / "nowhere")
    (tmp_path / "tokenizer.json").write_text('{"model": 3')
    with pytest.raises(LichenError, match=r"tokenizer.json: not JSON"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"model": 3}')
    with pytest.raises(LichenError, match=r"tokenizer.json: not a tokenizer"):
        Tokenizer.load(tmp_path)


def test_end_ids_come_from_the_generation_config_too(tmp_path: Path) -> None:
    engine = Engine(models.BPE({"a": 0, "b": 1, "c": 2}, []))
    save_foreign(engine, tmp_path)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [2, 1]}')
    tokenizer = Tokenizer.load(tmp_path)
    assert (tokenizer.eos_id, tokenizer.pad_id, tokenizer.stop_ids) == (2, 2, (2, 1))


def test_no_code_is_taken_from_a_folder(tmp_path: Path) -> None:
    folder = byte_level(tmp_path / "evil")
    marker = tmp_path / "marker"
    (folder / "tokenization_evil.py").write_text(f"open({str(marker)!r}, 'w')")
    config = {"auto_map": {"AutoTokenizer": ["tokenization_evil.Evil", None]}, "eos_token": "<|im_end|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    Tokenizer.load(folder).save(tmp_path / "saved")
    assert not marker.exists()
    assert "auto_map" not in (tmp_path / "saved" / "tokenizer_config.json").read_text()


def test_training_is_repeatable_across_processes() -> None:
    script = (
        "from lichen.dataset.tokenizer import Tokenizer\n"
        "texts = [f'{a} {b}{a}, {b}' for a in 'abcdefgh' for b in 'ijklmnop'] * 2\n"
        "print(Tokenizer.train(texts, 400).fingerprint)"
    )
    found = {subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout for _ in range(3)}
    assert len(found) == 1 and len(found.pop()) == 65


def test_a_vocabulary_too_small_is_refused() -> None:
    with pytest.raises(UsageError, match="need 320"):
        Tokenizer.train(["a"], vocab_size=300)


@pytest.mark.parametrize("skip", [True, False])
def test_streamed_text_equals_decoded_text(own: Tokenizer, skip: bool) -> None:
    draw = random.Random(0)
    for _ in range(50):
        ids = [draw.randrange(own.vocab_size) for _ in range(40)]
        stream = StreamDecoder(own, skip_special=skip)
        assert "".join([*map(stream.push, ids), stream.finish()]) == own.decode(ids, skip_special=skip)


def test_split_characters_are_held_back(own: Tokenizer) -> None:
    stream = StreamDecoder(own)
    parts = [stream.push(token) for token in own.encode("🙃𠮷!")]
    assert "".join(parts) == "🙃𠮷!"
    assert not any("\ufffd" in part for part in parts)
    assert stream.push(own.encode("🙃")[0]) == ""
    assert stream.finish() == "\ufffd"


def test_streams_of_other_decoders_keep_their_spaces(tmp_path: Path) -> None:
    words = {"▁the": 0, "▁cat": 1, "s": 2, "<0xE8>": 3, "<0x8B>": 4, "<0x94>": 5, "</s>": 6}
    engine = Engine(models.BPE(words, [], byte_fallback=True))
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    engine.decoder = decoders.Sequence(parts)
    engine.add_special_tokens(["</s>"])
    tokenizer = Tokenizer.load(save_foreign(engine, tmp_path, eos_token="</s>"))
    stream = StreamDecoder(tokenizer)
    pushed = [stream.push(token) for token in (0, 1, 2, 3, 4, 5, 1, 6)]
    assert "".join(pushed) + stream.finish() == "the cats苔 cat"
    assert pushed[3:5] == ["", ""]
