"""``lichen generate``: the same text by every way, and wrong requests in a line."""

import io
import json

import pytest

from lichen.config.errors import UsageError
from lichen.config.model import ModelConfig
from lichen.core.folders import whole_folder
from lichen.dataset.tokenizer import Tokenizer
from lichen.model.language_model import LanguageModel, initialise
from lichen.model.weights import write_model
from lichen.scripts.generate import run

SETTINGS = ["--device", "cpu", "--max-new-tokens", "12", "--temperature", "1", "--seed", "4"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    tokenizer = Tokenizer.train(["the cat sat on the mat", "a hat is not a cat"] * 8, vocab_size=340)
    config = ModelConfig(vocab_size=tokenizer.vocab_size, hidden_size=16, num_attention_heads=2, num_hidden_layers=1)
    folder = tmp_path_factory.mktemp("runs") / "tiny" / "checkpoints" / "lichen-7k_dense_step_0000003"
    folder.parent.mkdir(parents=True)
    with whole_folder(folder, {"tokenizer": tokenizer.fingerprint}) as partial:
        write_model(initialise(LanguageModel(config), seed=0), partial)
        tokenizer.save(partial)
    return folder


@pytest.fixture
def tiny(checkpoint):
    return str(checkpoint.parent.parent)


def rows(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_streamed_single_and_batched_text_is_the_same(tiny, capsys):
    run([tiny, "--prompt", "the cat", *SETTINGS])
    streamed = capsys.readouterr().out
    run([tiny, "--prompt", "a hat", "--prompt", "the cat", "--json", *SETTINGS])
    found = rows(capsys)
    assert [row["prompt"] for row in found] == ["a hat", "the cat"]
    assert streamed == f"the cat{found[1]['text']}\n"
    assert len(found[1]["tokens"]) == 12 and found[1]["finish"] == "length"
    run([f"{tiny}@step-3", "--prompt", "a hat", "--prompt", "the cat", *SETTINGS])
    assert f"the cat{found[1]['text']}\n" in capsys.readouterr().out


def test_samples_count_the_seed_up_and_small_batches_change_nothing(tiny, capsys):
    run([tiny, "--prompt", "the cat", "--samples", "3", "--json", *SETTINGS])
    together = rows(capsys)
    run([tiny, "--prompt", "the cat", "--samples", "3", "--batch", "2", "--json", *SETTINGS])
    assert rows(capsys) == together
    assert [row["seed"] for row in together] == [4, 5, 6]
    assert len({row["text"] for row in together}) == 3


def test_prompts_from_files_and_standard_input(tiny, tmp_path, capsys, monkeypatch):
    (tmp_path / "prompt.txt").write_text("the cat\nsat\n", encoding="utf-8")
    monkeypatch.setattr("sys.stdin", io.StringIO("a hat"))
    run([tiny, "--prompt-file", str(tmp_path / "prompt.txt"), "--prompt-file", "-", "--json", *SETTINGS])
    assert [row["prompt"] for row in rows(capsys)] == ["the cat\nsat", "a hat"]


def test_prompts_are_taken_as_they_are_typed(tiny, capsys):
    run([tiny, "--prompt", "1e3", "--prompt", "true", "--prompt", "[a]", "--json", *SETTINGS])
    assert [row["prompt"] for row in rows(capsys)] == ["1e3", "true", "[a]"]


def test_greedy_needs_no_seed_and_stop_texts_stop(tiny, capsys):
    run([tiny, "--prompt", "the cat", "--greedy", "--seed", "1", "--json", "--device", "cpu"])
    [first] = rows(capsys)
    run([tiny, "--prompt", "the cat", "--greedy", "--seed", "2", "--json", "--device", "cpu"])
    [second] = rows(capsys)
    assert first["text"] == second["text"]
    stop = first["text"][3:5]
    flag = stop.replace("\n", "\\n").replace("\t", "\\t")
    run([tiny, "--prompt", "the cat", "--greedy", "--stop", flag, "--json", "--device", "cpu"])
    assert rows(capsys)[0]["text"] == first["text"][: first["text"].find(stop)]


def test_the_default_is_a_hundred_tokens(tiny, capsys):
    run([tiny, "--prompt", "the cat", "--json", "--device", "cpu"])
    [row] = rows(capsys)
    assert row["finish"] == "stop" or len(row["tokens"]) == 100


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "one run or checkpoint"),
        (["RUN", "other", "--prompt", "x"], "one run or checkpoint"),
        (["RUN"], "--prompt"),
        (["RUN", "--prompt", ""], "empty"),
        (["RUN", "--prompt", "x", "--temperature", "nan"], "temperature"),
        (["RUN", "--prompt", "x", "--temperature", "-1"], "temperature"),
        (["RUN", "--prompt", "x", "--top-p", "0"], "top_p"),
        (["RUN", "--prompt", "x", "--tempreature", "1"], "temperature"),
        (["RUN", "--prompt", "x", "--stop", ""], "stop"),
        (["RUN", "--prompt-file", "absent.txt"], "no such prompt file"),
        (["RUN@step-4", "--prompt", "x"], "step-3"),
        (["RUN", "--prompt", "x", "--device", "warp"], "device"),
        (["RUN", "--prompt", "the cat " * 5000], "shorten"),
    ],
)
def test_a_wrong_request_is_said_in_a_line(tiny, argv, words):
    with pytest.raises(UsageError, match=words):
        run([word.replace("RUN", tiny) for word in argv])
