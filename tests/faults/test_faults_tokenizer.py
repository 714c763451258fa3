"""A tokenizer that is not the model's is refused by every verb; a begin token never stands twice."""

import json
import shutil
from pathlib import Path

import pytest
from tokenizers import processors

from lichen.core.folders import read_manifest, write_manifest
from lichen.core.runs import Run
from lichen.dataset.shards import Prepared
from lichen.dataset.tokenizer import Tokenizer
from lichen.inference.completion import encode_prompt


def swap_letters(folder: Path) -> None:
    """Two tokens of a ``tokenizer.json`` change places: the same size, other meanings."""
    path = folder / "tokenizer.json"
    data = json.loads(path.read_text())
    vocabulary = data["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    path.write_text(json.dumps(data))


@pytest.mark.parametrize("manifest", ["as it was", "written anew"])
def test_a_swapped_tokenizer_of_a_checkpoint_is_refused(manifest, run_copy, lichen, snapshot, tiny_flags, tmp_path):
    latest = Run(run_copy).latest()
    swap_letters(latest)
    if manifest == "written anew":
        write_manifest(latest, read_manifest(latest).fingerprint)
    for words in (["generate", latest, "--prompt", "the moss"], ["chat", latest, "--message", "hello"]):
        error = lichen(*words).refused(1)
        assert "tokenizer.json" in error and latest.name in error
    before = snapshot(run_copy)
    flags = [*tiny_flags, "--train.steps", 1, "--run.root", tmp_path / "runs", "--init-from", latest]
    said = lichen("train", *flags)
    assert said.status in (1, 2) and "tokenizer" in said.error and snapshot(run_copy) == before


def test_a_swapped_tokenizer_of_prepared_data_is_refused(prepared, run_copy, lichen, snapshot, tmp_path):
    folder = Path(shutil.copytree(prepared, tmp_path / "data"))
    swap_letters(folder / "tokenizer")
    before = snapshot(run_copy)
    words = ["train", run_copy, "--data.path", folder, "--train.steps", 10]
    error = lichen(*words).refused(1)
    assert "tokenizer/tokenizer.json: " in error and "lichen prepare" in error and snapshot(run_copy) == before
    write_manifest(folder, read_manifest(folder).fingerprint)
    error = lichen(*words).refused(1)
    assert "differs from the checkpoint's" in error and "put back" in error and snapshot(run_copy) == before


def with_begin_token(prepared: Path, folder: Path) -> Tokenizer:
    """The tokenizer of ``prepared``, made to begin every text with a token of its own, as Llama's does."""
    own = Tokenizer.load(prepared)
    data = json.loads(json.dumps(own.data))
    name = "<|reserved_0|>"
    template = processors.TemplateProcessing(f"{name} $A", special_tokens=[(name, own.control[name])])
    data["post_processor"] = json.loads(template.__getstate__())
    folder.mkdir()
    (folder / "tokenizer.json").write_text(json.dumps(data))
    names = {**own.names, "bos_token": name, "eos_token": own.name_of(own.eos_id)}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    return Tokenizer.load(folder)


def test_a_begin_token_stands_once_before_a_document_and_before_a_prompt(prepared, lichen, tmp_path):
    """Token by token: a document is one begin token, its text's ids and one end token; a prompt the same without the end."""
    tokenizer = with_begin_token(prepared, tmp_path / "tokenizer")
    begin = tokenizer.bos_id
    assert begin is not None and tokenizer.vocab_size == 320
    raw = ["the old moss", f"the {tokenizer.name_of(begin)} stone", "苔 藓"]
    (tmp_path / "raw.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in raw))
    words = ["--tokenizer.path", tmp_path / "tokenizer", "--split.validation_fraction", 0, "--workers", 1]
    assert lichen("prepare", tmp_path / "raw.jsonl", "--output", tmp_path / "data", *words).status == 0
    (part,) = Prepared.open(tmp_path / "data").documents("train")
    found = [part.tokens(number).tolist() for number in range(len(part))]
    letters = Tokenizer.load(prepared)
    assert found == [[begin, *letters.encode(text), tokenizer.end_of_text_id] for text in raw]
    assert all(document.count(begin) == 1 for document in found)
    for text in raw:
        assert encode_prompt(tokenizer, text) == [begin, *letters.encode(text)]
    assert letters.encode("the") == GOLDEN


GOLDEN = [147, 135, 132]
"""``the`` in bytes: 64 control tokens come first, then the printable bytes in their order."""
