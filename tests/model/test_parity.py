"""The model against transformers' own Llama, Qwen3, Mixtral and Qwen3-MoE, at tiny size: logits, gradients, import, export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from lichen.config.model import ModelConfig
from lichen.core.batch import Batch
from lichen.model.expert_names import stack
from lichen.model.hf import LichenForCausalLM
from lichen.model.language_model import LanguageModel, initialise
from lichen.model.weights import export_model, read_model, write_model

SIZES: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": None,
    "eos_token_id": None,
}
MIXTURE: dict[str, Any] = {**SIZES, "num_experts_per_tok": 2}
HEADS: dict[str, Any] = {"head_dim": 16}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 32,
    "beta_fast": 16.0,
    "beta_slow": 1.0,
}
CASES = {
    "llama": (LlamaForCausalLM, LlamaConfig(**SIZES)),
    "llama-tied": (LlamaForCausalLM, LlamaConfig(**SIZES, tie_word_embeddings=True)),
    "llama-yarn": (LlamaForCausalLM, LlamaConfig(**SIZES, rope_parameters=YARN)),
    "llama-wide-heads": (LlamaForCausalLM, LlamaConfig(**SIZES, head_dim=16)),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config(**SIZES, head_dim=8)),
    "qwen3-tied-yarn": (
        Qwen3ForCausalLM,
        Qwen3Config(**SIZES, head_dim=16, tie_word_embeddings=True, rope_parameters={**YARN, "attention_factor": 1.3}),
    ),
    "mixtral": (MixtralForCausalLM, MixtralConfig(**MIXTURE, num_local_experts=5)),
    "qwen3-moe": (
        Qwen3MoeForCausalLM,
        Qwen3MoeConfig(**MIXTURE, **HEADS, num_experts=6, moe_intermediate_size=24, norm_topk_prob=True),
    ),
    "qwen3-moe-raw-weights-one-dense": (
        Qwen3MoeForCausalLM,
        Qwen3MoeConfig(**MIXTURE, **HEADS, num_experts=6, moe_intermediate_size=24, mlp_only_layers=[0]),
    ),
}


def reference(name: str) -> Any:
    """A random model of transformers', with norms that are not all ones."""
    kind, config = CASES[name]
    torch.manual_seed(0)
    model = kind(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * (0.1 if parameter.dim() > 1 else 0.3))
    return model


def imported(model: Any, folder: Path) -> LanguageModel:
    model.save_pretrained(folder)
    return read_model(folder)


def tokens(rows: int = 2, length: int = 70) -> Tensor:
    return torch.randint(0, 61, (rows, length), generator=torch.Generator().manual_seed(1))


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def gradients(model: nn.Module) -> dict[str, Tensor]:
    """By our names."""
    return stack({name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None})


@pytest.mark.parametrize("name", CASES)
def test_logits_and_gradients_equal_the_reference(name: str, tmp_path: Path) -> None:
    theirs = reference(name)
    ours = imported(theirs, tmp_path)
    batch = Batch.of_tokens(tokens())
    assert_close(ours(batch, want="logits").logits, theirs(tokens()).logits)

    output = ours(batch)
    output.nll.mean().backward()
    loss = theirs(tokens(), labels=tokens()).loss
    loss.backward()
    assert_close(output.nll.mean(), loss)
    expected = gradients(theirs)
    assert expected.keys() == gradients(ours).keys()
    for key, gradient in gradients(ours).items():
        assert_close(gradient, expected[key])


@pytest.mark.parametrize("name", ["mixtral", "qwen3-moe"])
def test_mixtures_whose_experts_are_one_tensor_on_disk_are_read_too(name: str, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    theirs = reference(name)
    theirs.config.save_pretrained(tmp_path)
    save_file(dict(theirs.state_dict()), tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert any(key.endswith("experts.gate_up_proj") for key in theirs.state_dict())
    assert_close(read_model(tmp_path)(Batch.of_tokens(tokens()), want="logits").logits, theirs(tokens()).logits)


@pytest.mark.parametrize("changes", [{}, {"qk_norm": True, "feed_forward_by_layer": {"0": {"kind": "dense"}}}])
def test_mixtures_trained_here_load_in_transformers_and_here_again(changes: dict[str, Any], tmp_path: Path) -> None:
    sizes = {key: value for key, value in SIZES.items() if not key.endswith("token_id")}
    section = {"kind": "moe", "num_experts": 5, "balance": "none"}
    ours = initialise(LanguageModel(ModelConfig.from_data({**sizes, "feed_forward": section, **changes})), seed=3)
    expected = ours(Batch.of_tokens(tokens()), want="logits").logits
    assert export_model(ours, tmp_path / "native") == ("qwen3_moe" if changes else "mixtral")
    loaded: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "native", output_loading_info=True)
    theirs, info = loaded
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    assert type(theirs).__name__ == ("Qwen3MoeForCausalLM" if changes else "MixtralForCausalLM")
    assert_close(theirs(tokens()).logits, expected)
    theirs.save_pretrained(tmp_path / "theirs")
    for folder in ("native", "theirs"):
        assert torch.equal(read_model(tmp_path / folder)(Batch.of_tokens(tokens()), want="logits").logits, expected)
    (tmp_path / "own").mkdir()
    write_model(ours, tmp_path / "own")
    wrapped = AutoModelForCausalLM.from_pretrained(tmp_path / "own")
    assert isinstance(wrapped, LichenForCausalLM)
    assert torch.equal(wrapped(tokens()).logits, expected)


@pytest.mark.parametrize("name", ["llama-tied", "qwen3-tied-yarn"])
@pytest.mark.parametrize("native", [True, False], ids=["exported", "checkpoint"])
def test_transformers_loads_what_we_write(name: str, native: bool, tmp_path: Path) -> None:
    kind, _ = CASES[name]
    ours = initialise(imported(reference(name), tmp_path / "first"), seed=3)
    folder = tmp_path / "second"
    folder.mkdir()
    if native:
        export_model(ours, folder)
    else:
        write_model(ours, folder)
    theirs, info = kind.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert_close(theirs(tokens()).logits, ours(Batch.of_tokens(tokens()), want="logits").logits)


@pytest.mark.parametrize("name", ["llama", "qwen3", "mixtral"])
@pytest.mark.parametrize("length", [70, 600], ids=["short", "long"])
def test_bfloat16_is_as_near_to_float32_as_the_reference(name: str, length: int, tmp_path: Path) -> None:
    theirs = reference(name)
    ours = imported(theirs, tmp_path)
    ids = tokens(length=length)
    exact = theirs(ids).logits
    with torch.autocast("cpu", torch.bfloat16):
        mixed = [ours(Batch.of_tokens(ids), want="logits").logits, theirs(ids).logits]
    half = [ours.bfloat16()(Batch.of_tokens(ids), want="logits").logits, theirs.bfloat16()(ids).logits]
    for our_logits, their_logits in (mixed, half):
        error, allowed = (our_logits.float() - exact).norm(), (their_logits.float() - exact).norm()
        assert error <= 1.5 * allowed
