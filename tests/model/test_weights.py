"""Folders of weights: round trips, shards, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lichen.config.errors import LichenError, UsageError
from lichen.config.model import ModelConfig
from lichen.core.batch import Batch
from lichen.model.language_model import LanguageModel, initialise
from lichen.model.weights import (
    export_model,
    from_hf_config,
    native_type,
    read_model,
    state_for_saving,
    to_hf_config,
    write_model,
)

SMALL: dict[str, Any] = {"vocab_size": 37, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4}


def small(**changes: Any) -> LanguageModel:
    return initialise(LanguageModel(ModelConfig.from_data({**SMALL, **changes})), seed=0)


def equal(first: LanguageModel, second: LanguageModel) -> bool:
    states = first.state_dict(), second.state_dict()
    return states[0].keys() == states[1].keys() and all(
        torch.equal(states[0][key], states[1][key]) for key in states[0]
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tie_word_embeddings": False, "qk_norm": True, "head_dim": 6},
        {"feed_forward": {"kind": "none"}, "rope_scaling": {"factor": 2.0}},
        {"feed_forward_by_layer": {"1": {"kind": "dense", "intermediate_size": 24}}},
        {"feed_forward": {"kind": "moe", "num_experts": 3, "num_shared_experts": 1, "balance": "bias"}},
        {"feed_forward": {"kind": "product_key", "num_keys": 4, "top_k": 2, "key_dim": 4, "value_dim": 6}},
    ],
    ids=["tied", "untied", "none", "by layer", "experts", "product keys"],
)
def test_what_is_written_is_read_back_to_the_bit(changes: dict[str, Any], tmp_path: Path) -> None:
    model = small(**changes)
    write_model(model, tmp_path)
    again = read_model(tmp_path)
    assert equal(model, again) and not again.training
    assert {tensor.dtype for tensor in load_file(tmp_path / "model.safetensors").values()} == {torch.float32}
    assert to_hf_config(again.config) == to_hf_config(model.config)
    batch = Batch.of_tokens(torch.arange(8)[None])
    assert torch.equal(again(batch).nll, model(batch).nll)


def test_weights_can_be_read_in_another_dtype(tmp_path: Path) -> None:
    write_model(small(), tmp_path)
    assert {parameter.dtype for parameter in read_model(tmp_path, dtype=torch.bfloat16).parameters()} == {
        torch.bfloat16
    }


def test_names_lose_the_prefixes_of_wrappers() -> None:
    class Wrapped(torch.nn.Module):
        def __init__(self, module: torch.nn.Module):
            super().__init__()
            self.module = module

    model = small()
    assert state_for_saving(Wrapped(model)).keys() == model.state_dict().keys()
    half = state_for_saving(small().bfloat16())
    assert {tensor.dtype for tensor in half.values()} == {torch.float32}


def test_shards_with_an_index_are_read(tmp_path: Path) -> None:
    model = small()
    write_model(model, tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    index = {}
    for number, names in enumerate((sorted(state)[::2], sorted(state)[1::2])):
        save_file({name: state[name] for name in names}, tmp_path / f"model-{number}.safetensors")
        index |= dict.fromkeys(names, f"model-{number}.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    assert equal(model, read_model(tmp_path))
    (tmp_path / "model-1.safetensors").unlink()
    with pytest.raises(LichenError, match=r"model-1\.safetensors does not exist, but the index names it"):
        read_model(tmp_path)


def test_an_index_cannot_name_files_elsewhere(tmp_path: Path) -> None:
    write_model(small(), tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../secret.safetensors"}}))
    with pytest.raises(LichenError, match="outside of its folder"):
        read_model(tmp_path)


def rewrite(folder: Path, change: Any) -> None:
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("model.norm.weight"), r"missing: model\.norm\.weight"),
        (lambda state: state.update({"model.nurm.weight": torch.ones(1)}), r"unexpected: model\.nurm\.weight"),
        (
            lambda state: state.update({"model.norm.weight": torch.ones(3)}),
            r"model\.norm\.weight \(3,\) instead of \(16,\)",
        ),
        (lambda state: state.update({"lm_head.weight": torch.ones(37, 16)}), "lm_head differs from the embedding"),
    ],
    ids=["missing", "unexpected", "shape", "tied head"],
)
def test_weights_that_do_not_fit_are_named(change: Any, message: str, tmp_path: Path) -> None:
    write_model(small(), tmp_path)
    rewrite(tmp_path, change)
    with pytest.raises(LichenError, match=message):
        read_model(tmp_path)


def test_redundant_copies_of_other_writers_are_dropped(tmp_path: Path) -> None:
    model = small()
    write_model(model, tmp_path)
    extra = {
        "lm_head.weight": model.model.embed_tokens.weight.detach().clone(),
        "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(2),
    }
    rewrite(tmp_path, lambda state: state.update(extra))
    assert equal(model, read_model(tmp_path))


def test_damaged_and_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(LichenError, match=r"config\.json does not exist"):
        read_model(tmp_path)
    write_model(small(), tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(LichenError, match=r"model\.safetensors is damaged"):
        read_model(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(LichenError, match="convert the weights to safetensors"):
        read_model(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(LichenError, match=r"config\.json is damaged"):
        read_model(tmp_path)


def test_both_spellings_of_rotary_settings_are_understood() -> None:
    base = {key: value for key, value in to_hf_config(small().config).items() if not key.startswith("rope")}
    yarn = {"factor": 2.0, "original_max_position_embeddings": 64}
    old = from_hf_config({**base, "rope_theta": 500.0, "rope_scaling": {"type": "yarn", **yarn}})
    new = from_hf_config({**base, "rope_parameters": {"rope_type": "yarn", "rope_theta": 500.0, **yarn}})
    assert old == new and old.rope_theta == 500.0
    assert old.rope_scaling is not None and old.rope_scaling.factor == 2.0
    assert from_hf_config({**base, "rope_theta": 500.0, "rope_scaling": None}).rope_scaling is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "mistrel"}, "model_type 'mistrel' is not supported"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"attention_bias": True}, "attention_bias"),
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 1.0}}, "type 'llama3'"),
        ({"hidden_size": None}, "hidden_size must be given"),
        ({"model_type": "mixtral", "sliding_window": 4096}, "sliding_window"),
        ({"model_type": "qwen3_moe"}, "number of experts"),
    ],
)
def test_foreign_architectures_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        from_hf_config({**to_hf_config(small().config), **changes})


def test_only_what_transformers_has_exports_natively(tmp_path: Path) -> None:
    assert export_model(small(), tmp_path / "llama") == "llama"
    assert export_model(small(qk_norm=True), tmp_path / "qwen3") == "qwen3"
    with pytest.raises(UsageError, match="all dense and equally wide"):
        export_model(small(feed_forward={"kind": "none"}), tmp_path / "none")


@pytest.mark.parametrize(
    ("section", "changes", "expected"),
    [
        ({}, {}, "mixtral"),
        ({}, {"qk_norm": True}, "qwen3_moe"),
        ({"norm_topk_prob": False}, {"qk_norm": True}, "qwen3_moe"),
        ({"norm_topk_prob": False}, {}, None),
        ({"scoring": "sigmoid"}, {}, None),
        ({"balance": "bias"}, {}, None),
        ({"num_shared_experts": 1}, {}, None),
        ({}, {"feed_forward_by_layer": {"1": {"kind": "moe", "num_experts": 3}}}, None),
        ({}, {"feed_forward_by_layer": {"1": {"kind": "dense"}}}, None),
        ({}, {"qk_norm": True, "feed_forward_by_layer": {"1": {"kind": "none"}}}, None),
    ],
)
def test_a_mixture_exports_only_as_what_computes_the_same(
    section: dict[str, Any], changes: dict[str, Any], expected: str | None
) -> None:
    config = ModelConfig.from_data({**SMALL, "feed_forward": {"kind": "moe", **section}, **changes})
    assert native_type(config) == expected
    if expected:
        again = from_hf_config(to_hf_config(config, expected))
        assert to_hf_config(again, expected) == to_hf_config(config, expected)


def test_layers_of_experts_keep_their_width_beside_dense_ones_of_another(tmp_path: Path) -> None:
    model = small(
        feed_forward={"kind": "moe", "num_experts": 3},
        feed_forward_by_layer={"0": {"kind": "dense", "intermediate_size": 24}},
        qk_norm=True,
    )
    write_model(model, tmp_path)
    assert equal(model, read_model(tmp_path))
    export_model(model, tmp_path / "native")
    assert equal(model, read_model(tmp_path / "native"))


def test_a_missing_expert_is_named(tmp_path: Path) -> None:
    export_model(small(feed_forward={"kind": "moe", "num_experts": 3}), tmp_path)
    rewrite(tmp_path, lambda state: state.pop("model.layers.1.block_sparse_moe.experts.1.w3.weight"))
    with pytest.raises(LichenError, match=r"layers\.1\.mlp\.experts\.up_proj: expert 1 is missing"):
        read_model(tmp_path)
    rewrite(tmp_path, lambda state: state.pop("model.layers.1.block_sparse_moe.experts.2.w3.weight"))
    with pytest.raises(LichenError, match=r"up_proj \(1, .* instead of \(3, "):
        read_model(tmp_path)


def test_token_ids_go_into_the_configuration(tmp_path: Path) -> None:
    write_model(small(), tmp_path, extra={"eos_token_id": 3})
    assert json.loads((tmp_path / "config.json").read_text())["eos_token_id"] == 3
