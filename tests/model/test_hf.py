"""The checkpoint folder behind transformers' interface: loading, generation, adapters."""

# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from lichen.config.errors import LichenError
from lichen.config.model import ModelConfig
from lichen.core.batch import Batch
from lichen.model.hf import LichenForCausalLM
from lichen.model.language_model import LanguageModel, initialise
from lichen.model.weights import read_model, write_model

VARIANTS: dict[str, dict[str, Any]] = {
    "tied": {},
    "untied": {"tie_word_embeddings": False, "qk_norm": True, "head_dim": 6},
    "none": {"feed_forward_by_layer": {"1": {"kind": "none"}}, "rope_scaling": {"factor": 2.0}},
}


def small(**changes: Any) -> LanguageModel:
    sizes = {
        "vocab_size": 37,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "initializer_range": 0.3,
    }
    config = ModelConfig.from_data({**sizes, "num_key_value_heads": 2, **changes})
    return initialise(LanguageModel(config), seed=0).eval()


def tokens(rows: int = 2, length: int = 9) -> Tensor:
    return torch.randint(0, 37, (rows, length), generator=torch.Generator().manual_seed(1))


def logits_of(model: LanguageModel, ids: Tensor) -> Tensor:
    logits = model(Batch.of_tokens(ids), want="logits").logits
    assert logits is not None
    return logits


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_checkpoint_folder_loads_with_equal_logits_and_saves_itself_again(variant: str, tmp_path: Path) -> None:
    model = small(**VARIANTS[variant])
    write_model(model, tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert isinstance(loaded, LichenForCausalLM)
    expected = logits_of(model, tokens())
    assert torch.equal(loaded(tokens()).logits, expected)
    loaded.save_pretrained(tmp_path / "again")
    assert torch.equal(logits_of(read_model(tmp_path / "again"), tokens()), expected)


def test_wrapping_copies_nothing() -> None:
    model = small(tie_word_embeddings=False)
    wrapped = LichenForCausalLM.wrap(model)
    assert wrapped.language_model is model
    own = dict(model.named_parameters())
    assert all(parameter is own[name] for name, parameter in wrapped.named_parameters()) and len(own) > 10


def test_a_new_model_is_initialised() -> None:
    torch.manual_seed(0)
    wrapped = LichenForCausalLM(LichenForCausalLM.wrap(small()).config)
    assert 0.2 < wrapped.model.embed_tokens.weight.std().item() < 0.4


@torch.no_grad()
def recomputed(model: LanguageModel, prompt: Tensor, count: int) -> Tensor:
    """Greedy continuation, reading the whole text again for every token."""
    ids = prompt
    for _ in range(count):
        ids = torch.cat([ids, logits_of(model, ids)[:, -1].argmax(-1, keepdim=True)], dim=1)
    return ids


@pytest.mark.parametrize("options", [{}, {"use_cache": False}, {"cache_implementation": "static"}], ids=str)
def test_generate_equals_full_recomputation(options: dict[str, Any]) -> None:
    model = small()
    wrapped = LichenForCausalLM.wrap(model)
    wrapped.generation_config.disable_compile = True
    got = wrapped.generate(tokens(), max_new_tokens=6, do_sample=False, **options)
    assert torch.equal(got, recomputed(model, tokens(), 6))


@pytest.mark.parametrize("use_cache", [True, False])
def test_left_padded_prompts_continue_as_alone(use_cache: bool) -> None:
    model = small(qk_norm=True)
    prompts = [tokens(1, 4), tokens(1, 9), tokens(1, 6)]
    ids, mask = torch.zeros(3, 9, dtype=torch.long), torch.zeros(3, 9, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, -prompt.shape[1] :], mask[row, -prompt.shape[1] :] = prompt[0], 1
    wrapped = LichenForCausalLM.wrap(model)
    got = wrapped.generate(
        ids,
        attention_mask=mask,
        max_new_tokens=5,
        do_sample=False,
        use_cache=use_cache,
        pad_token_id=0,
        eos_token_id=None,
    )
    for row, prompt in enumerate(prompts):
        assert torch.equal(got[row, 9:], recomputed(model, prompt, 5)[0, -5:])


def test_right_padding_changes_no_real_logits_and_labels_give_the_mean_loss() -> None:
    model = small()
    wrapped = LichenForCausalLM.wrap(model)
    mask = torch.ones(2, 9, dtype=torch.long)
    mask[1, 5:] = 0
    output = wrapped(tokens(), attention_mask=mask, labels=tokens().masked_fill(mask == 0, -100))
    torch.testing.assert_close(output.logits[1, :5], logits_of(model, tokens()[1:, :5])[0])
    nll = torch.cat([model(Batch.of_tokens(ids)).nll for ids in (tokens()[:1], tokens()[1:, :5])])
    torch.testing.assert_close(output.loss, nll.mean())


def test_transformers_would_go_on_with_random_weights_but_we_stop(tmp_path: Path) -> None:
    write_model(small(), tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    state["wrong." + "model.norm.weight"] = state.pop("model.norm.weight")
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(LichenError, match=r"model\.norm\.weight"):
        AutoModelForCausalLM.from_pretrained(tmp_path)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_adapters_find_the_projections_and_train_alone() -> None:
    from peft import LoraConfig, get_peft_model

    model = small()
    before = logits_of(model, tokens()).detach()
    adapted = get_peft_model(LichenForCausalLM.wrap(model), LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    trained = [name for name, parameter in adapted.named_parameters() if parameter.requires_grad]
    assert len(trained) == 2 * 2 * 2 and all("lora_" in name for name in trained)
    torch.testing.assert_close(adapted(input_ids=tokens()).logits, before)
    optimizer = torch.optim.SGD([parameter for parameter in adapted.parameters() if parameter.requires_grad], lr=1.0)
    for _ in range(2):
        optimizer.zero_grad()
        adapted(input_ids=tokens(), labels=tokens()).loss.backward()
        optimizer.step()
    after = adapted(input_ids=tokens()).logits
    assert (after - before).abs().max() > 1e-3
    torch.testing.assert_close(logits_of(model, tokens()), after)
