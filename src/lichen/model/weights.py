"""Weights and configuration on disk: a Hugging Face model folder, safetensors in float32 under Llama's and Qwen3's own names.

``config.json`` has Llama's field names, ``qk_norm`` and ``feed_forward``: ``AutoModelForCausalLM`` loads the folder once
``lichen.model.hf`` is imported, and a dense model's folder can be given to ``LlamaForCausalLM`` (or, with QK norm,
``Qwen3ForCausalLM``) itself; ``export_model`` names them in the file too, and writes mixtures of experts as Mixtral or Qwen3-MoE.
Reading takes folders of all these, whole or sharded. A missing, unexpected or misshapen weight is an error: transformers would go
on with random numbers. Nothing is ever unpickled.

>>> config = ModelConfig(vocab_size=9, hidden_size=8, num_attention_heads=2, qk_norm=True)
>>> from_hf_config(to_hf_config(config)) == config.model_copy(update={"num_key_value_heads": 2, "head_dim": 4, **_inner(config)})
True
>>> native_type(config)
'qwen3'
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lichen.config.errors import LichenError, UsageError, nearest
from lichen.config.feed_forward import DenseConfig, ExpertsConfig
from lichen.config.model import ModelConfig, YarnConfig
from lichen.model.expert_names import split, stack
from lichen.model.language_model import LanguageModel

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
ARCHITECTURES = {
    "lichen": "LichenForCausalLM",
    "llama": "LlamaForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "mixtral": "MixtralForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
}

SAME_NAME = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
    "rms_norm_eps",
    "tie_word_embeddings",
    "initializer_range",
)


def _inner(config: ModelConfig) -> dict[str, int]:
    return {"intermediate_size": config.dense_intermediate_size(DenseConfig())}


def native_type(config: ModelConfig) -> str | None:
    """ "llama", "qwen3", "mixtral" or "qwen3_moe" where transformers' own class computes the same, else None."""
    parts = [config.feed_forward_of(layer) for layer in range(config.num_hidden_layers)]
    dense = {config.dense_intermediate_size(part) for part in parts if isinstance(part, DenseConfig)}
    experts = [part for part in parts if isinstance(part, ExpertsConfig)]
    forms = {_form(config, part) for part in experts}
    if len(dense) > 1 or len(forms) > 1 or None in forms or any(p.kind not in ("dense", "moe") for p in parts):
        return None
    if not experts:
        return "qwen3" if config.qk_norm else "llama" if config.hidden_size % config.num_attention_heads == 0 else None
    if config.qk_norm:
        return "qwen3_moe"
    return "mixtral" if not dense and experts[0].norm_topk_prob else None


def _form(config: ModelConfig, part: ExpertsConfig) -> tuple[int, ...] | None:
    """All that transformers' mixtures can differ in; None for what they do not have."""
    if part.scoring != "softmax" or part.balance == "bias" or part.num_shared_experts:
        return None
    width = part.expert_width(config.dense_intermediate_size(DenseConfig()))
    return part.num_experts, part.num_experts_per_tok, width, part.norm_topk_prob


def to_hf_config(config: ModelConfig, model_type: str = "lichen") -> dict[str, Any]:
    """The content of ``config.json``. Raises UsageError where ``model_type`` ("llama", say) cannot express the model."""
    native = native_type(config)
    if model_type not in ("lichen", native):
        raise UsageError(
            f"this model is not one of type '{model_type}'{nearest(model_type, {'lichen', native or 'lichen'})}"
        )
    parts = [config.feed_forward_of(layer) for layer in range(config.num_hidden_layers)]
    plain = native in ("llama", "qwen3") or model_type == "qwen3_moe"
    dense = next((part for part in parts if plain and isinstance(part, DenseConfig)), DenseConfig())
    data = {name: getattr(config, name) for name in SAME_NAME}
    data |= {
        "architectures": [ARCHITECTURES[model_type]],
        "model_type": model_type,
        "num_key_value_heads": config.key_value_heads,
        "head_dim": config.head_size,
        "intermediate_size": config.dense_intermediate_size(dense),
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "dtype": "float32",
        **_rope_to_hf(config),
        **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id")),
    }
    if model_type == "lichen":
        data |= {key: config.to_data()[key] for key in ("qk_norm", "feed_forward", "feed_forward_by_layer")}
    if model_type == "mixtral":
        return data | _experts_to_hf(config, model_type) | {"sliding_window": None}
    if model_type in ("qwen3", "qwen3_moe"):
        return data | _experts_to_hf(config, model_type) | {"use_sliding_window": False}
    return data | {"mlp_bias": False}


def _experts_to_hf(config: ModelConfig, model_type: str) -> dict[str, Any]:
    """What Mixtral's and Qwen3-MoE's ``config.json`` say of experts; nothing for other types."""
    parts = {layer: config.feed_forward_of(layer) for layer in range(config.num_hidden_layers)}
    section = next((part for part in parts.values() if isinstance(part, ExpertsConfig)), None)
    if section is None:
        return {}
    width = section.expert_width(config.dense_intermediate_size(DenseConfig()))
    data = {"num_experts_per_tok": section.num_experts_per_tok, "num_local_experts": section.num_experts}
    if model_type == "mixtral":
        return data | {"intermediate_size": width}
    return data | {
        "num_experts": section.num_experts,  # what older readers look for
        "moe_intermediate_size": width,
        "norm_topk_prob": section.norm_topk_prob,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [layer for layer, part in parts.items() if isinstance(part, DenseConfig)],
    }


def _experts_from_hf(data: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """``feed_forward`` and ``feed_forward_by_layer`` of a Mixtral or Qwen3-MoE."""
    number = data.get("num_experts", data.get("num_local_experts"))
    width = data.get("intermediate_size" if kind == "mixtral" else "moe_intermediate_size")
    if None in (number, width, data.get("num_experts_per_tok")):
        raise UsageError("config.json: the number of experts, of those per token and their width must be given")
    section = {
        "kind": "moe",
        "num_experts": number,
        "num_experts_per_tok": data["num_experts_per_tok"],
        "moe_intermediate_size": width,
        "norm_topk_prob": kind == "mixtral" or bool(data.get("norm_topk_prob", False)),
    }
    step, single = data.get("decoder_sparse_step") or 1, data.get("mlp_only_layers") or []
    dense = [layer for layer in range(data["num_hidden_layers"]) if layer in single or (layer + 1) % step]
    return {"feed_forward": section, "feed_forward_by_layer": {str(layer): {"kind": "dense"} for layer in dense}}


def _rope_to_hf(config: ModelConfig) -> dict[str, Any]:
    """Both spellings: transformers 5 reads ``rope_parameters``, older readers ``rope_theta`` and ``rope_scaling``."""
    scaling = None if config.rope_scaling is None else config.rope_scaling.model_dump(exclude_none=True)
    return {
        "rope_theta": config.rope_theta,
        "rope_scaling": scaling,
        "rope_parameters": {"rope_type": "default", **(scaling or {}), "rope_theta": config.rope_theta},
    }


def from_hf_config(data: Mapping[str, Any]) -> ModelConfig:
    """The model that a ``config.json`` of one of ``ARCHITECTURES`` describes. Raises UsageError for what we do not have."""
    kind = data.get("model_type")
    if kind not in ARCHITECTURES:
        raise UsageError(f"config.json: model_type '{kind}' is not supported{nearest(str(kind), ARCHITECTURES)}")
    _refuse_foreign(data)
    fields = {name: data[name] for name in SAME_NAME if data.get(name) is not None}
    if missing := [name for name in SAME_NAME[:4] if name not in fields]:
        raise UsageError(f"config.json: {', '.join(missing)} must be given")
    for name in ("num_key_value_heads", "head_dim", "intermediate_size"):
        fields[name] = data.get(name)
    fields["tie_word_embeddings"] = bool(data.get("tie_word_embeddings", False))
    fields |= _rope_from_hf(data)
    fields["qk_norm"] = kind in ("qwen3", "qwen3_moe") or (kind == "lichen" and bool(data.get("qk_norm", False)))
    if kind in ("mixtral", "qwen3_moe"):
        fields |= _experts_from_hf(data, kind)
    if kind == "lichen":
        fields |= {key: data[key] for key in ("feed_forward", "feed_forward_by_layer") if data.get(key) is not None}
    return ModelConfig.from_data(fields)


def _refuse_foreign(data: Mapping[str, Any]) -> None:
    """Name everything in ``data`` that changes what is computed and that our blocks do not have."""
    activation = data.get("hidden_act", "silu")
    problems = [f"hidden_act '{activation}' (only silu)"] if activation not in ("silu", "swish") else []
    names = ["attention_bias", "mlp_bias", "use_sliding_window"]
    if data.get("model_type") == "mixtral":
        names += ["sliding_window", "router_jitter_noise"]
    problems += [name for name in names if data.get(name)]
    if problems:
        raise UsageError(f"config.json: not supported: {', '.join(problems)}; import another model")


def _rope_from_hf(data: Mapping[str, Any]) -> dict[str, Any]:
    """``rope_theta`` and ``rope_scaling`` out of either spelling."""
    found = dict(data.get("rope_scaling") or data.get("rope_parameters") or {})
    usual = 1e6 if data.get("model_type") == "mixtral" else 10000.0
    theta = found.pop("rope_theta", None) or data.get("rope_theta") or usual
    kind = found.pop("rope_type", None) or found.pop("type", None) or "default"
    found.pop("type", None)
    if found.pop("partial_rotary_factor", 1.0) not in (None, 1.0) or kind not in ("default", "yarn"):
        raise UsageError(
            f"config.json: rotary positions of type '{kind}' are not supported (only default and yarn, whole heads)"
        )
    if kind == "default":
        return {"rope_theta": float(theta), "rope_scaling": None}
    found.setdefault("original_max_position_embeddings", data.get("max_position_embeddings"))
    if found.get("factor") is None:
        found["factor"] = data["max_position_embeddings"] / found["original_max_position_embeddings"]
    _settle_attention_factor(found)
    fields = {key: value for key, value in found.items() if value is not None and key in YarnConfig.model_fields}
    return {"rope_theta": float(theta), "rope_scaling": fields}


def _settle_attention_factor(rope: dict[str, Any]) -> None:
    """DeepSeek writes the factor as a quotient of two ``mscale``."""
    scale, all_dimensions = rope.pop("mscale", None), rope.pop("mscale_all_dim", None)
    if rope.get("attention_factor") is None and scale and all_dimensions and rope["factor"] > 1:
        logarithm = 0.1 * math.log(rope["factor"])
        rope["attention_factor"] = (logarithm * scale + 1) / (logarithm * all_dimensions + 1)


def state_for_saving(model: nn.Module) -> dict[str, Tensor]:
    """Name → tensor on the CPU, floating ones in float32, contiguous, without the prefixes of wrappers.

    What already is so is not copied. Where weights are sharded, every rank must call this: they are gathered.
    """
    state = {}
    for name, tensor in model.state_dict().items():
        tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
        dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
        name = ".".join(part for part in name.split(".") if part not in ("_orig_mod", "_fsdp_wrapped_module"))
        state[name.removeprefix("module.")] = tensor.detach().to("cpu", dtype).contiguous()
    return state


def write_config(
    config: ModelConfig, folder: Path, extra: Mapping[str, Any] | None = None, model_type: str = "lichen"
) -> None:
    """Write ``config.json`` into ``folder``; ``extra`` (token ids, say) overrides what it would hold."""
    data = to_hf_config(config, model_type) | dict(extra or {})
    (Path(folder) / CONFIG_FILE).write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def write_model(
    model: nn.Module,
    folder: Path,
    *,
    config: ModelConfig | None = None,
    extra: Mapping[str, Any] | None = None,
    model_type: str = "lichen",
) -> None:
    """Write ``config.json`` and ``model.safetensors`` into the existing ``folder`` (whole or not at all is the caller's care)."""
    from safetensors.torch import save_file

    settled: ModelConfig = config or model.config  # pyright: ignore[reportAssignmentType]
    write_config(settled, folder, extra, model_type)
    save_file(split(state_for_saving(model), model_type), Path(folder) / WEIGHTS_FILE, metadata={"format": "pt"})


def export_model(model: LanguageModel, folder: Path, extra: Mapping[str, Any] | None = None) -> str:
    """Write a folder that transformers loads without Lichen; returns its type (``native_type``). UsageError where none fits."""
    native = native_type(model.config)
    if native is None:
        raise UsageError(
            "only a model whose layers are all dense and equally wide, or mixtures as in Mixtral and Qwen3-MoE, exports natively;"
            " load this one through lichen.model.hf"
        )
    Path(folder).mkdir(parents=True, exist_ok=True)
    write_model(model, folder, extra=extra, model_type=native)
    return native


def read_config(folder: Path) -> ModelConfig:
    """The model described by ``folder/config.json``. Raises LichenError where the file is missing or unreadable."""
    path = Path(folder) / CONFIG_FILE
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise LichenError(f"{path} does not exist: name a model or checkpoint folder") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise LichenError(f"{path} is damaged ({error}): use another copy or checkpoint") from None
    return from_hf_config(data)


def read_model(folder: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> LanguageModel:
    """The model in ``folder``, in evaluation mode. Raises LichenError naming every weight missing, unexpected or misshapen."""
    model = LanguageModel.on_meta(read_config(folder))
    load_weights(model, read_weights(folder), where=str(folder), device=device, dtype=dtype)
    return model.eval()


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Every tensor of the folder's safetensors, one file or shards with an index, on the CPU in the dtype they are in."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    state: dict[str, Tensor] = {}
    for path in _weight_files(Path(folder)):
        try:
            state |= load_file(path)
        except FileNotFoundError:
            raise LichenError(f"{path} does not exist, but the index names it: complete the folder") from None
        except SafetensorError as error:
            raise LichenError(f"{path} is damaged ({error}): use another copy or checkpoint") from None
    return state


def _weight_files(folder: Path) -> list[Path]:
    if (folder / WEIGHTS_FILE).exists():
        return [folder / WEIGHTS_FILE]
    if not (folder / INDEX_FILE).exists():
        raise LichenError(
            f"{folder} holds no {WEIGHTS_FILE} and no {INDEX_FILE}: convert the weights to safetensors first"
        )
    try:
        names = sorted(set(json.loads((folder / INDEX_FILE).read_text(encoding="utf-8"))["weight_map"].values()))
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, AttributeError, TypeError) as error:
        raise LichenError(f"{folder / INDEX_FILE} is damaged ({error!r}): use another copy") from None
    if foreign := [name for name in names if Path(name).name != name]:
        raise LichenError(f"{folder / INDEX_FILE} names files outside of its folder: {', '.join(foreign)}")
    return [folder / name for name in names]


def load_weights(
    model: LanguageModel,
    state: Mapping[str, Tensor],
    where: str = "the weights",
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Make ``state`` the weights of ``model``, strictly. A model on the meta device takes the tensors themselves, on
    ``device`` and in ``dtype``; any other keeps its own memory.
    """
    state = stack(_without_redundant(model, state, where), where)
    own = model.state_dict()
    _check(where, own, state)
    if any(tensor.is_meta for tensor in own.values()):
        model.load_state_dict({name: _placed(tensor, device, dtype) for name, tensor in state.items()}, assign=True)
    else:
        model.load_state_dict(state)


def _placed(tensor: Tensor, device: torch.device | str | None, dtype: torch.dtype | None) -> Tensor:
    return tensor.to(
        device or tensor.device, dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
    )


def _without_redundant(model: LanguageModel, state: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Drop what some writers add: tables of frequencies, and a tied head's second copy."""
    kept = {name: tensor for name, tensor in state.items() if not name.endswith("rotary_emb.inv_freq")}
    if model.lm_head is None and "lm_head.weight" in kept:
        embedding = kept.get("model.embed_tokens.weight")
        if embedding is not None and not torch.equal(embedding, kept["lm_head.weight"]):
            raise LichenError(
                f"{where}: lm_head differs from the embedding it is tied to: set tie_word_embeddings to false"
            )
        del kept["lm_head.weight"]
    return kept


def _check(where: str, own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    problems = [
        _listed("missing", sorted(own.keys() - state.keys())),
        _listed("unexpected", sorted(state.keys() - own.keys())),
        _listed(
            "of another shape",
            [
                f"{name} {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
                for name in sorted(own.keys() & state.keys())
                if own[name].shape != state[name].shape
            ],
        ),
    ]
    if found := [problem for problem in problems if problem]:
        raise LichenError(f"{where} and config.json do not fit each other: {'; '.join(found)}")


def _listed(title: str, names: Iterable[str], most: int = 8) -> str:
    names = list(names)
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{title}: {', '.join(names[:most])}{rest}" if names else ""


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
