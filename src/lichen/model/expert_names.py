"""Experts in files of others: one matrix each there, one tensor for all in our models and checkpoints.

Qwen3-MoE's files have ``mlp.experts.0.gate_proj.weight``, Mixtral's ``block_sparse_moe.experts.0.w1.weight``; transformers
itself holds, and may write, ``mlp.experts.gate_up_proj`` with gate and up after one another. All three are read.

>>> ours = {"layers.0.mlp.experts.up_proj": torch.zeros(2, 3, 4), "layers.0.mlp.gate.weight": torch.zeros(2, 4)}
>>> sorted(split(ours, "mixtral"))[1:]
['layers.0.block_sparse_moe.experts.1.w3.weight', 'layers.0.block_sparse_moe.gate.weight']
>>> {name: tuple(tensor.shape) for name, tensor in stack(split(ours, "qwen3_moe")).items()}
{'layers.0.mlp.gate.weight': (2, 4), 'layers.0.mlp.experts.up_proj': (2, 3, 4)}
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from lichen.config.errors import LichenError

MIXTRAL = {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"}
_SINGLE = re.compile(r"(.*\.mlp\.experts\.)(\d+)\.(gate_proj|up_proj|down_proj|w[123])\.weight")
_ALL = re.compile(r"(.*\.mlp\.experts\.)(gate_proj|up_proj|down_proj)")


def stack(state: Mapping[str, Tensor], where: str = "the weights") -> dict[str, Tensor]:
    """``state`` under our names, whoever wrote it; raises LichenError where an expert is missing between others."""
    ours = {theirs: name for name, theirs in MIXTRAL.items()}
    found: dict[str, Tensor] = {}
    single: dict[str, dict[int, Tensor]] = {}
    for name, tensor in state.items():
        name = name.replace(".block_sparse_moe.", ".mlp.")
        if match := _SINGLE.fullmatch(name):
            whole = match[1] + ours.get(match[3], match[3])
            single.setdefault(whole, {})[int(match[2])] = tensor
        elif name.endswith(".mlp.experts.gate_up_proj"):
            prefix = name.removesuffix("gate_up_proj")
            found[prefix + "gate_proj"], found[prefix + "up_proj"] = tensor.chunk(2, dim=1)
        else:
            found[name] = tensor
    for whole, tensors in single.items():
        if missing := sorted(set(range(max(tensors) + 1)) - tensors.keys()):
            raise LichenError(f"{where}: {whole}: expert {missing[0]} is missing; complete the folder")
        if len({tensor.shape for tensor in tensors.values()}) > 1:
            raise LichenError(f"{where}: {whole}: the experts differ in shape; use another copy")
        found[whole] = torch.stack([tensors[number] for number in range(len(tensors))])
    return found


def split(state: Mapping[str, Tensor], model_type: str) -> dict[str, Tensor]:
    """``state`` under the names of ``model_type``'s files, "qwen3_moe" or "mixtral"; of any other as it is."""
    if model_type not in ("qwen3_moe", "mixtral"):
        return dict(state)
    found: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if match := _ALL.fullmatch(name):
            last = MIXTRAL[match[2]] if model_type == "mixtral" else match[2]
            parts = {f"{match[1]}{number}.{last}.weight": part.clone() for number, part in enumerate(tensor.unbind())}
        else:
            parts = {name: tensor}
        if model_type == "mixtral":
            parts = {name.replace(".mlp.", ".block_sparse_moe."): part for name, part in parts.items()}
        found |= parts
    return found


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
