"""Loading: by every name a checkpoint has, whole and with its own tokenizer, or not at all."""

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file

from lichen.config.errors import LichenError, UsageError
from lichen.config.model import ModelConfig
from lichen.core.batch import Batch
from lichen.core.folders import whole_folder
from lichen.core.runs import AVERAGES
from lichen.dataset.tokenizer import Tokenizer
from lichen.inference.loading import load
from lichen.model.language_model import LanguageModel, initialise
from lichen.model.weights import export_model, write_model


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(["the cat sat on the mat", "a hat is not a cat"] * 8, vocab_size=340)


@pytest.fixture(scope="module")
def model(tokenizer):
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=16,
        num_attention_heads=2,
        num_hidden_layers=1,
        intermediate_size=24,
    )
    return initialise(LanguageModel(config), seed=0).eval()


@pytest.fixture
def run(tmp_path, model, tokenizer):
    folder = tmp_path / "runs" / "tiny"
    for step in (1, 2):
        checkpoint = folder / "checkpoints" / f"lichen-5k_dense_step_{step:07d}"
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        with whole_folder(checkpoint, {"tokenizer": tokenizer.fingerprint}) as partial:
            write_model(model, partial)
            tokenizer.save(partial)
    return folder


def logits_of(model):
    with torch.inference_mode():
        return model(Batch.of_tokens(torch.tensor([[65, 66, 67]])), want="last").logits


def test_a_run_and_its_checkpoints_load_by_name(run, model, tokenizer):
    for spec in (run, f"{run}@latest", f"{run}@step-1", run / "checkpoints" / "lichen-5k_dense_step_0000002"):
        loaded, its_tokenizer = load(spec, "cpu")
        assert torch.equal(logits_of(loaded), logits_of(model)) and not loaded.training
        assert its_tokenizer.fingerprint == tokenizer.fingerprint


def test_another_tokenizer_is_refused_although_the_files_are_whole(run, model, tmp_path):
    other = Tokenizer.train(["entirely other words here"] * 8, vocab_size=340)
    tokenizer = load(run, "cpu")[1]
    folder = tmp_path / "swapped"
    with whole_folder(folder, {"tokenizer": tokenizer.fingerprint}) as partial:
        write_model(model, partial)
        other.save(partial)
    with pytest.raises(LichenError, match=r"tokenizer\.json: not the tokenizer the model was trained with"):
        load(folder, "cpu")


def test_a_swapped_tokenizer_file_is_found_by_its_checksum(run):
    checkpoint = run / "checkpoints" / "lichen-5k_dense_step_0000002"
    path = checkpoint / "tokenizer.json"
    path.write_text(path.read_text().replace("cat", "cot"))
    with pytest.raises(LichenError, match=r"tokenizer\.json"):
        load(checkpoint, "cpu")


@pytest.mark.parametrize("vocabulary", [330, 340 + 2000])
def test_a_vocabulary_of_another_size_is_refused_without_a_manifest(tmp_path, tokenizer, vocabulary):
    config = ModelConfig(vocab_size=vocabulary, hidden_size=8, num_attention_heads=2, num_hidden_layers=1)
    write_model(initialise(LanguageModel(config), seed=0), tmp_path)
    tokenizer.save(tmp_path)
    with pytest.raises(LichenError, match="do not belong together"):
        load(tmp_path, "cpu")


def test_a_plain_hugging_face_folder_loads(tmp_path, model, tokenizer):
    assert export_model(model, tmp_path) == "llama"
    tokenizer.save(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "llama"
    loaded, _ = load(tmp_path, "cpu")
    torch.testing.assert_close(logits_of(loaded), logits_of(model), rtol=1e-6, atol=1e-6)


def test_a_damaged_file_is_named(run):
    checkpoint = run / "checkpoints" / "lichen-5k_dense_step_0000002"
    weights = checkpoint / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-3] ^= 1
    weights.write_bytes(data)
    with pytest.raises(LichenError, match=r"model\.safetensors"):
        load(checkpoint, "cpu")


def test_nonsense_is_a_wrong_request(run, tmp_path):
    for call in (
        lambda: load(tmp_path / "runs" / "tyni", "cpu"),
        lambda: load(run, "gpu"),
        lambda: load(run, "cpu", "fp8"),  # type: ignore[arg-type]
    ):
        with pytest.raises(UsageError):
            call()


def test_a_folder_without_a_tokenizer_says_so(tmp_path, model):
    folder = tmp_path / "model"
    folder.mkdir()
    write_model(model, folder)
    with pytest.raises(LichenError, match=r"tokenizer\.json"):
        load(folder, "cpu")


def test_bfloat16_is_loaded_as_asked(run):
    loaded, _ = load(run, "cpu", "bf16")
    assert loaded.head_weight.dtype == torch.bfloat16


def test_a_copied_checkpoint_loads_anywhere(run, tmp_path, model):
    copy = shutil.copytree(run / "checkpoints" / "lichen-5k_dense_step_0000001", tmp_path / "elsewhere")
    assert torch.equal(logits_of(load(copy, "cpu")[0]), logits_of(model))


def test_averaged_weights_load_by_name(run, model, tokenizer, tmp_path):
    with pytest.raises(UsageError, match="holds no averaged weights"):
        load(f"{run}+averaged", "cpu")
    averages = {name: parameter.detach() * 0.5 for name, parameter in model.named_parameters()}
    folder = run / "checkpoints" / "lichen-5k_dense_step_0000003"
    with whole_folder(folder, {"tokenizer": tokenizer.fingerprint}) as partial:
        write_model(model, partial)
        tokenizer.save(partial)
        (partial / "training").mkdir()
        save_file({**averages, "updates": torch.tensor(7)}, partial / AVERAGES)
    for spec in (f"{run}+averaged", f"{run}@latest+averaged", f"{folder}+averaged"):
        loaded, _ = load(spec, "cpu")
        for name, parameter in loaded.named_parameters():
            assert torch.equal(parameter, averages[name]), name
    assert torch.equal(logits_of(load(run, "cpu")[0]), logits_of(model))
