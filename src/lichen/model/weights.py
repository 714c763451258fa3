"""Weights and configuration on disk: a Hugging Face model folder, safetensors in float32 under Llama's and Qwen3's own names.

``config.json`` has Llama's field names, ``qk_norm`` and ``feed_forward``: ``AutoModelForCausalLM`` loads the folder once
``lichen.model.hf`` is imported, and a dense model's folder can be given to ``LlamaForCausalLM`` (or, with QK norm,
``Qwen3ForCausalLM``) itself; ``export_model`` names them in the file too. Reading takes folders of all three, whole or sharded. A
missing, unexpected or misshapen weight is an error: transformers would go on with random numbers. Nothing is ever unpickled.

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
from lichen.config.model import DenseConfig, ModelConfig, YarnConfig
from lichen.model.language_model import LanguageModel

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
ARCHITECTURES = {"lichen": "LichenForCausalLM", "llama": "LlamaForCausalLM", "qwen3": "Qwen3ForCausalLM"}

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
    """ "llama" or "qwen3" where transformers' own class computes the same, else None."""
    parts = [config.feed_forward_of(layer) for layer in range(config.num_hidden_layers)]
    widths = {config.dense_intermediate_size(part) if isinstance(part, DenseConfig) else None for part in parts}
    if None in widths or len(widths) > 1:
        return None
    if config.qk_norm:
        return "qwen3"
    return "llama" if config.hidden_size % config.num_attention_heads == 0 else None


def to_hf_config(config: ModelConfig, model_type: str = "lichen") -> dict[str, Any]:
    """The content of ``config.json``. Raises UsageError where ``model_type`` ("llama", "qwen3") cannot express the model."""
    native = native_type(config)
    if model_type not in ("lichen", native):
        raise UsageError(
            f"this model is not one of type '{model_type}'{nearest(model_type, {'lichen', native or 'lichen'})}"
        )
    first = config.feed_forward_of(0)
    dense = first if native is not None and isinstance(first, DenseConfig) else DenseConfig()
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
    return data | ({"use_sliding_window": False} if model_type == "qwen3" else {"mlp_bias": False})


def _rope_to_hf(config: ModelConfig) -> dict[str, Any]:
    """Both spellings: transformers 5 reads ``rope_parameters``, older readers ``rope_theta`` and ``rope_scaling``."""
    scaling = None if config.rope_scaling is None else config.rope_scaling.model_dump(exclude_none=True)
    return {
        "rope_theta": config.rope_theta,
        "rope_scaling": scaling,
        "rope_parameters": {"rope_type": "default", **(scaling or {}), "rope_theta": config.rope_theta},
    }


def from_hf_config(data: Mapping[str, Any]) -> ModelConfig:
    """The model that a ``config.json`` of type lichen, llama or qwen3 describes. Raises UsageError for what we do not have."""
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
    fields["qk_norm"] = kind == "qwen3" or (kind == "lichen" and bool(data.get("qk_norm", False)))
    if kind == "lichen":
        fields |= {key: data[key] for key in ("feed_forward", "feed_forward_by_layer") if data.get(key) is not None}
    return ModelConfig.from_data(fields)


def _refuse_foreign(data: Mapping[str, Any]) -> None:
    """Name everything in ``data`` that changes what is computed and that our blocks do not have."""
    activation = data.get("hidden_act", "silu")
    problems = [f"hidden_act '{activation}' (only silu)"] if activation not in ("silu", "swish") else []
    problems += [name for name in ("attention_bias", "mlp_bias", "use_sliding_window") if data.get(name)]
    if problems:
        raise UsageError(f"config.json: not supported: {', '.join(problems)}; import another model")


def _rope_from_hf(data: Mapping[str, Any]) -> dict[str, Any]:
    """``rope_theta`` and ``rope_scaling`` out of either spelling."""
    found = dict(data.get("rope_scaling") or data.get("rope_parameters") or {})
    theta = found.pop("rope_theta", None) or data.get("rope_theta") or 10000.0
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
    save_file(state_for_saving(model), Path(folder) / WEIGHTS_FILE, metadata={"format": "pt"})


def export_model(model: LanguageModel, folder: Path, extra: Mapping[str, Any] | None = None) -> str:
    """Write a folder that transformers loads without Lichen; returns its type, "llama" or "qwen3". UsageError where none fits."""
    native = native_type(model.config)
    if native is None:
        raise UsageError(
            "only a model whose layers are all dense and equally wide exports natively; load this one through lichen.model.hf"
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
    state = _without_redundant(model, state, where)
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
