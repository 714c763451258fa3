"""``lichen evaluate language``: from a trained run to tables and files."""

import json

import pytest

from lichen.config.errors import LichenError, UsageError
from lichen.config.model import ModelConfig
from lichen.core.folders import remove_folder, whole_folder
from lichen.dataset.bank import write_bank
from lichen.dataset.facts import made_fact
from lichen.dataset.tokenizer import Tokenizer
from lichen.model.language_model import LanguageModel, initialise
from lichen.model.weights import write_model
from lichen.scripts.evaluate import run
from lichen.scripts.evaluate_language import trained_length

FEW = ["--device", "cpu", "--samples", "4", "--prompt-tokens", "6", "--new-tokens", "5", "--layer-tokens", "200"]


def test_a_trained_run_is_measured_and_measured_alike_again(trained_run, made_text, tmp_path, capsys):
    assert run(["language", str(trained_run), "--text", str(made_text), *FEW]) == 0
    out, err = capsys.readouterr()
    assert "bits per byte" in out and "distinct-2" in out and "∇ attention" in out and "… layers" in err
    [folder] = (trained_run / "evaluation").iterdir()
    assert folder.name.endswith("_step_0000008") and (folder / "language.png").is_file()
    data = json.loads((folder / "language.json").read_text(encoding="utf-8"))
    assert data["documents"] == 240 and data["context"] == 64 and len(data["layers"]) == 2
    assert 0 < data["bits_per_byte"]["low"] < data["bits_per_byte"]["value"] < data["bits_per_byte"]["high"] < 10
    assert data["layers"][1]["gradient_norm"] > 0 and data["layers"][0]["n"] > 150
    words = ["--quiet", "--output", str(tmp_path / "again"), "--context", "16"]
    assert run(["language", str(trained_run), *FEW, *words, "--text", str(made_text)]) == 0
    assert "distinct" not in capsys.readouterr().out
    again = json.loads((tmp_path / "again" / "language.json").read_text(encoding="utf-8"))
    assert again["continuations"] == data["continuations"] and again["bits_per_byte"] != data["bits_per_byte"]


def test_a_model_that_reads_facts_is_given_those_of_its_run(made_text, tmp_path, capsys):
    tokenizer = Tokenizer.train(["grey moss grows slowly on old stone"] * 8, vocab_size=340)
    part = {"kind": "knowledge", "knowledge_dim": 8, "router": "language-loss", "beside": {"kind": "dense"}}
    size = {"vocab_size": 340, "hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2}
    model = initialise(LanguageModel(ModelConfig.from_data({**size, "feed_forward_by_layer": {"1": part}})), seed=0)
    model.get_parameter("model.layers.1.mlp.reader.gate.values").data.fill_(1.0)
    folder = tmp_path / "run" / "checkpoints" / "lichen-7k_knowledge_step_0000003"
    folder.parent.mkdir(parents=True)
    with whole_folder(folder, {"tokenizer": tokenizer.fingerprint}) as partial:
        write_model(model, partial)
        tokenizer.save(partial)
    words = ["language", str(tmp_path / "run"), "--text", str(made_text), "--documents", "40", *FEW]
    with pytest.raises(LichenError, match="reads facts and there is no bank"):
        run(words)
    costs = []
    for entry in ("stone", "rain"):
        remove_folder(tmp_path / "run" / "knowledge")
        write_bank(tmp_path / "run" / "knowledge", [made_fact("grey moss", "grows on", entry)])
        assert run(words) == 0
        data = json.loads((tmp_path / "run" / "evaluation" / folder.name / "language.json").read_text(encoding="utf-8"))
        costs.append(data["bits_per_byte"]["value"])
    assert costs[0] != costs[1], "another bank, other costs"
    parts = data["layers"][1]["gradient_norm_by_part"]
    assert set(parts) == {"attention", "feed_forward", "router", "reader"} and min(parts.values()) > 0
    assert data["documents"] == 40 and "∇ reader" in capsys.readouterr().out


def test_several_files_are_one_text(trained_run, made_text, tmp_path, capsys):
    more = tmp_path / "more.txt"
    more.write_text("grey moss on old stone\n", encoding="utf-8")
    few = ["--samples", "0", "--layer-tokens", "0", "--device", "cpu", "--output", str(tmp_path / "out")]
    assert run(["language", str(trained_run), "--text", str(made_text), str(more), *few]) == 0
    data = json.loads((tmp_path / "out" / "language.json").read_text(encoding="utf-8"))
    assert data["documents"] == 241 and not (tmp_path / "out" / "language.png").exists()
    assert data["settings"]["text"] == [str(made_text), str(more)] and "Continuations" not in capsys.readouterr().out


def test_the_context_is_what_was_trained_on_not_what_there_are_positions_for(trained_run, tmp_path):
    [checkpoint] = (trained_run / "checkpoints").glob("*_step_0000008")
    assert trained_length(checkpoint, 4096) == 64 and trained_length(checkpoint, 32) == 32
    assert trained_length(tmp_path / "elsewhere", 128) == 128


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--text", "x"], "takes a run"),
        (["x"], "--text FILE"),
        (["x", "--text", "y", "--sample", "4"], "nearest: samples"),
        (["x", "--text", "y", "--samples", "-1"], "samples"),
    ],
)
def test_wrong_requests_are_said(words, message):
    with pytest.raises(UsageError, match=message):
        run(["language", *words])


def test_text_that_is_not_there_is_said_with_the_nearest_name(trained_run, made_text):
    with pytest.raises(UsageError, match=r"nearest: made\.jsonl"):
        run(["language", str(trained_run), "--text", str(made_text.with_name("mode.jsonl")), "--device", "cpu"])
